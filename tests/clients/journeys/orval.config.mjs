export default {
  catalog: {
    input: "./openapi.json",
    output: {
      target: "./generated/catalog.ts",
      client: "fetch",
      baseUrl: { getBaseUrlFromSpecification: true },
    },
  },
};
