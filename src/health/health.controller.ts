import { Controller, Get, Res } from '@nestjs/common';
import type { Response } from 'express';
import { HealthService } from './health.service.js';

/** `GET /livez`: the process runs. `GET /readyz`: it can serve. Neither tells a stranger more than a word. */
@Controller()
export class HealthController {
  constructor(private readonly health: HealthService) {}

  @Get('livez')
  live(@Res() response: Response): void {
    response.set('Cache-Control', 'no-store').json({ status: 'ok' });
  }

  @Get('readyz')
  async ready(@Res() response: Response): Promise<void> {
    const status = await this.health.readiness();
    response
      .set('Cache-Control', 'no-store')
      .status(status === 'unavailable' ? 503 : 200)
      .json({ status });
  }
}
