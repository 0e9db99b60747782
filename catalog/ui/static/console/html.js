// Elements are written as tagged templates: htm parses them, Preact renders them. Values become text
// or properties, never markup, so what a product is called cannot become a script.
import htm from "./vendor/htm.js";
import { h } from "./vendor/preact.js";

export const html = htm.bind(h);
