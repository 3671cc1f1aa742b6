import { Controller, Get, Res } from '@nestjs/common';
import { ApiOperation, ApiResponse, ApiSecurity } from '@nestjs/swagger';
import type { Response } from 'express';
import { AuditLog } from '../endings/audit-log.js';
import type { EndCause } from '../store/store.js';
import { OpenApi } from './openapi.js';

const CAUSES = Object.keys({
  user: true,
  elsewhere: true,
  replaced: true,
  provider: true,
  operator: true,
  epoch: true,
  expired: true,
  'refresh-refused': true,
  'refresh-lost': true,
  'identity-changed': true,
  'token-expired': true,
} satisfies Record<EndCause, true>) as EndCause[];

/** What the listener says about itself. */
@Controller()
export class ServiceController {
  constructor(
    private readonly audit: AuditLog,
    private readonly openApi: OpenApi,
  ) {}

  @Get('livez')
  @ApiOperation({ summary: 'Whether the process runs' })
  @ApiSecurity({})
  @ApiResponse({ status: 200, description: 'It does.' })
  live(@Res() response: Response): void {
    response.json({ status: 'ok' });
  }

  @Get('metrics')
  @ApiOperation({ summary: 'Numbers of this process, in the text format of Prometheus' })
  @ApiResponse({
    status: 200,
    description: 'The numbers.',
    content: { 'text/plain': { schema: { type: 'string' } } },
  })
  metrics(@Res() response: Response): void {
    const name = 'cloakroom_sessions_ended_total';
    const lines = [
      `# HELP ${name} Sessions that this process ended, by cause.`,
      `# TYPE ${name} counter`,
      ...CAUSES.map((cause) => `${name}{cause="${cause}"} ${String(this.audit.ended.get(cause) ?? 0)}`),
    ];
    response.set('Content-Type', 'text/plain; version=0.0.4; charset=utf-8').send(`${lines.join('\n')}\n`);
  }

  @Get('v1/openapi.json')
  @ApiOperation({ summary: 'This description' })
  @ApiResponse({ status: 200, description: 'OpenAPI 3.' })
  describe(@Res() response: Response): void {
    response.json(this.openApi.document);
  }
}
