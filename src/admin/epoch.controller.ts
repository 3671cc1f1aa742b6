import { Body, Controller, HttpCode, Inject, Post, Req, Res } from '@nestjs/common';
import { ApiBody, ApiOperation, ApiResponse } from '@nestjs/swagger';
import type { Request, Response } from 'express';
import { AuditLog } from '../endings/audit-log.js';
import { SessionDirectory } from '../endings/session-directory.js';
import { PolicyEpoch } from '../store/policy-epoch.js';
import type { Store } from '../store/store.js';
import { actorOf } from './caller.js';
import { Confirmations } from './confirmations.js';
import { documents } from './documents.js';
import { body, openApiSchema } from './openapi.js';
import { checked, epochBody } from './requests.js';
import { STORE } from './injection.js';

/** `POST /v1/epoch`: everything from before now is over, or has to be renewed; takes no longer for a million sessions */
@Controller('v1/epoch')
export class EpochController {
  constructor(
    private readonly epoch: PolicyEpoch,
    private readonly directory: SessionDirectory,
    private readonly confirmations: Confirmations,
    private readonly audit: AuditLog,
    @Inject(STORE) private readonly store: Store,
  ) {}

  @Post()
  @HttpCode(200)
  @ApiOperation({
    summary: 'End or renew everything from before now',
    description:
      'Takes no longer for a million sessions than for one. Refresh tokens are not revoked at the provider: ' +
      '`POST /v1/endings` does that. The kind `end` must be confirmed, as there.',
  })
  @ApiBody({ schema: openApiSchema(epochBody) })
  @ApiResponse({
    status: 200,
    description: 'Since when; or the result of a dry run.',
    ...body(documents.epoch, documents.planned),
  })
  async raise(@Req() request: Request, @Res() response: Response, @Body() sent: unknown): Promise<void> {
    const { kind, reason, dryRun, confirm } = checked(epochBody, sent);
    const actor = actorOf(request);
    const act = { epoch: kind };
    if (dryRun === true) {
      // At most: counting those that live would take far longer than the act.
      const sessions = await this.directory.size();
      const code = kind === 'end' ? await this.confirmations.ask(actor.name, act) : undefined;
      response.json({ dryRun: true, sessions, confirm: code });
      return;
    }
    if (kind === 'end') {
      await this.confirmations.require(actor.name, act, confirm);
      this.audit.alarm('mass_ending', actor, { epoch: kind, reason });
    }
    const at = new Date(await this.epoch.bump(kind)).toISOString();
    const durability = await this.store.confirm();
    this.audit.record('epoch_raised', actor, { kind, reason, at, durability });
    response.json({ kind, at, durability });
  }
}
