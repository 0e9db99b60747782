// In a file of its own, so that the page needs no inline script.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  // Its default asks a server on the internet whether the document is valid.
  validatorUrl: null,
});
