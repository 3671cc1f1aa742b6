import { randomUUID } from 'node:crypto';
import { Body, Controller, Get, HttpCode, Inject, Param, Post, Req, Res } from '@nestjs/common';
import { ApiBody, ApiHeader, ApiOperation, ApiParam, ApiResponse } from '@nestjs/swagger';
import type { Request, Response } from 'express';
import type { z } from 'zod';
import { AuditLog, type Actor } from '../endings/audit-log.js';
import { EndingJobs } from '../endings/ending-jobs.js';
import { EndingsService, type EndingResult } from '../endings/endings.service.js';
import type { SessionFilter } from '../endings/filter.js';
import { isBroad, requireSelection } from '../endings/filter.js';
import { SessionDirectory } from '../endings/session-directory.js';
import { CloakroomError } from '../errors.js';
import type { Logger } from '../observability/logger.js';
import { actorOf, callerOf } from './caller.js';
import { Confirmations } from './confirmations.js';
import { documents } from './documents.js';
import { body, openApiSchema } from './openapi.js';
import { checked, endingBody, idempotencyKey, toFilter } from './requests.js';
import { LOGGER } from './injection.js';

/** Milliseconds for which an answer waits for the end of an ending, before it says that it is under way. */
const WAIT = 10_000;
/** Milliseconds a repeated request gives the first one to write down what it does, and how often it looks. */
const BEGINS_WITHIN = 500;
const LOOK_EVERY = 25;

type PlanDocument = z.input<typeof documents.planned>;
type EndingDocument = z.input<typeof documents.ending>;

/** `POST /v1/endings`: ends many. `GET /v1/endings/<id>`: how far that is. */
@Controller('v1/endings')
export class EndingsController {
  constructor(
    private readonly endings: EndingsService,
    private readonly directory: SessionDirectory,
    private readonly confirmations: Confirmations,
    private readonly audit: AuditLog,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  @Post()
  @HttpCode(200)
  @ApiOperation({
    summary: 'End sessions',
    description:
      'Ends what the filter means and began before now. With `dryRun`, only tells how many that is. A filter that names ' +
      'no user, subject, provider session or handle must be confirmed: send it with `dryRun` first, then with the ' +
      '`confirm` of the answer.',
  })
  @ApiHeader({
    name: 'Idempotency-Key',
    required: false,
    description: 'The same key again, within a day, is the same request and gets the same ending.',
    schema: { type: 'string', maxLength: 128 },
  })
  @ApiBody({ schema: openApiSchema(endingBody) })
  @ApiResponse({
    status: 200,
    description: 'Done; or the result of a dry run.',
    ...body(documents.ending, documents.planned),
  })
  @ApiResponse({
    status: 202,
    description: 'Under way; `Location` tells how far.',
    ...body(documents.ending),
  })
  async create(@Req() request: Request, @Res() response: Response, @Body() sent: unknown): Promise<void> {
    const { filter: written, reason, dryRun, confirm } = checked(endingBody, sent);
    const filter = toFilter(written);
    requireSelection(filter);
    const { name: operator } = callerOf(request);
    if (dryRun === true) {
      const plan = await this.plan(operator, filter);
      const { sessions: listed } = plan;
      this.audit.record('sessions_listed', actorOf(request), { by: Object.keys(filter), listed });
      response.json(plan);
      return;
    }
    const key = checked(idempotencyKey, request.get('idempotency-key'));
    const name = key === undefined ? randomUUID() : JSON.stringify(['admin', operator, key]);
    const id = EndingJobs.idOf(name);
    const repeated =
      key !== undefined && (await this.confirmations.isRepeated(operator, key, { filter, reason }));
    const known = repeated ? await this.begun(id) : undefined;
    if (known !== undefined) {
      answer(response, known);
      return;
    }
    const actor = actorOf(request);
    if (isBroad(filter)) {
      await this.confirmations.require(operator, filter, confirm);
      // Said before anything ends: whoever watches the log must hear of it even if this process does not live to finish.
      this.audit.alarm('mass_ending', actor, { ending: id, by: Object.keys(filter), reason });
    }
    answer(response, await this.begin(filter, { name, id, reason, actor }));
  }

  @Get(':id')
  @ApiOperation({ summary: 'How far an ending is' })
  @ApiParam({ name: 'id', description: 'As `POST /v1/endings` gave it; known for a day.' })
  @ApiResponse({ status: 200, description: 'Running or done.', ...body(documents.ending) })
  @ApiResponse({ status: 404, description: 'There is none.' })
  async show(@Res() response: Response, @Param('id') id: string): Promise<void> {
    const found = await this.find(id);
    if (found === undefined) throw new CloakroomError('not-found');
    response.json(found);
  }

  private async plan(operator: string, filter: SessionFilter): Promise<PlanDocument> {
    const sessions = await this.directory.count(filter);
    const confirm = isBroad(filter) ? await this.confirmations.ask(operator, filter) : undefined;
    return { dryRun: true, sessions, ...(confirm === undefined ? {} : { confirm }) };
  }

  private async find(id: string): Promise<EndingDocument | undefined> {
    if (!/^[A-Za-z0-9_-]{43}$/.test(id)) return undefined;
    const result = await this.endings.result(id);
    if (result === undefined) return undefined;
    const { ended, durability } = result;
    return durability === undefined
      ? { id, state: 'running', ended }
      : { id, state: 'done', ended, durability };
  }

  /** Of two requests with one key at the same time, the second waits until the first has written down what it does. */
  private async begun(id: string): Promise<EndingDocument | undefined> {
    for (let waited = 0; waited < BEGINS_WITHIN; waited += LOOK_EVERY) {
      const found = await this.find(id);
      if (found !== undefined) return found;
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY));
    }
    return undefined;
  }

  private async begin(
    filter: SessionFilter,
    { name, id, reason, actor }: { name: string; id: string; reason: string; actor: Actor },
  ): Promise<EndingDocument> {
    let far = 0;
    const ending = this.endings.end(filter, {
      id: name,
      cause: 'operator',
      reason,
      actor,
      progress: (ended) => {
        far = ended;
      },
    });
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), WAIT);
    });
    try {
      const result: EndingResult | undefined = await Promise.race([ending, patience]);
      if (result !== undefined) {
        return { id, state: 'done', ended: result.ended, durability: result.durability };
      }
    } finally {
      clearTimeout(timer);
    }
    // It goes on without the caller; should it fail, what was written down is taken up again by any process.
    ending.catch((error: unknown) => {
      this.logger.warn('ending_interrupted', { ending: id, error });
    });
    return { id, state: 'running', ended: far };
  }
}

function answer(response: Response, document: EndingDocument): void {
  if (document.state === 'running') response.status(202).location(`/v1/endings/${document.id}`);
  response.json(document);
}
