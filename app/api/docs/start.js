// Shows the service's own OpenAPI document; deep links name an operation.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null });
