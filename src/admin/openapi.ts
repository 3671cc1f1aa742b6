import { applyDecorators, type INestApplication } from '@nestjs/common';
import { ApiQuery, DocumentBuilder, SwaggerModule, type OpenAPIObject } from '@nestjs/swagger';
import { z } from 'zod';
import { documents } from './documents.js';

type OpenApiSchema = Exclude<NonNullable<OpenAPIObject['components']>['schemas'], undefined>[string];

/** What a schema accepts (`input`) or what an answer holds (`output`), as OpenAPI 3.1 writes it. */
export function openApiSchema(schema: z.ZodType, io: 'input' | 'output' = 'input'): OpenApiSchema {
  const made = z.toJSONSchema(schema, {
    io,
    unrepresentable: 'any',
    reused: 'inline',
    override({ jsonSchema: node }) {
      // The format says the same, and can be read.
      if (node.format === 'date-time') Reflect.deleteProperty(node, 'pattern');
    },
  });
  Reflect.deleteProperty(made, '$schema');
  return made as OpenApiSchema;
}

/** The JSON body of an answer. */
export function body(...schemas: z.ZodType[]): { content: Record<string, { schema: OpenApiSchema }> } {
  const all = schemas.map((schema) => openApiSchema(schema, 'output'));
  const [only] = all;
  const schema = all.length === 1 && only !== undefined ? only : { oneOf: all };
  return { content: { 'application/json': { schema } } };
}

export function queryParameters(schema: z.ZodObject): MethodDecorator {
  const decorators = Object.entries(schema.shape).map(([name, parameter]) => {
    const { description = '', ...made } = openApiSchema(parameter as z.ZodType) as { description?: string };
    return ApiQuery({ name, required: false, description, schema: made });
  });
  return applyDecorators(...decorators);
}

/** The description of the listener, made once from what its controllers say of themselves. */
export class OpenApi {
  #document: OpenAPIObject | undefined;

  get document(): OpenAPIObject | undefined {
    return this.#document;
  }

  describe(app: INestApplication): void {
    const about = new DocumentBuilder()
      .setTitle('Cloakroom admin API')
      .setDescription('Lists and ends sessions. Errors are problem documents (RFC 9457).')
      .setVersion('1')
      .setOpenAPIVersion('3.1.0')
      .addBearerAuth({ type: 'http', scheme: 'bearer' }, 'token')
      .addSecurity('certificate', {
        // OpenAPI 3.1 has it, the library's types do not.
        type: 'mutualTLS' as 'http',
        description: 'A client certificate, where the listener asks for one.',
      })
      .addSecurityRequirements('token')
      .addSecurityRequirements('certificate')
      .addGlobalResponse({
        status: 'default',
        description: 'Why not.',
        content: { 'application/problem+json': { schema: openApiSchema(documents.problem, 'output') } },
      })
      .build();
    this.#document = SwaggerModule.createDocument(app, about, {
      operationIdFactory: (controller, method) =>
        `${controller.replace('Controller', '').toLowerCase()}.${method}`,
    });
  }
}
