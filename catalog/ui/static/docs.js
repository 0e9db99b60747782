// A separate file, so that the page needs no inline script.
SwaggerUIBundle({
  url: document.getElementById("swagger-ui").dataset.document,
  dom_id: "#swagger-ui",
  deepLinking: true,
  // The default asks a server on the internet to validate the document.
  validatorUrl: null,
});
