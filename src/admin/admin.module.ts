import { Module, type DynamicModule } from '@nestjs/common';
import { AuditLog } from '../endings/audit-log.js';
import { EndingsService } from '../endings/endings.service.js';
import { SessionDirectory } from '../endings/session-directory.js';
import type { Logger } from '../observability/logger.js';
import { PolicyEpoch } from '../store/policy-epoch.js';
import type { Sealer } from '../store/sealer.js';
import { ServerSeal } from '../store/server-seal.js';
import type { Store } from '../store/store.js';
import { Confirmations } from './confirmations.js';
import { EndingsController } from './endings.controller.js';
import { EpochController } from './epoch.controller.js';
import { OpenApi } from './openapi.js';
import { ServiceController } from './service.controller.js';
import { SessionsController } from './sessions.controller.js';
import { LOGGER, STORE } from './injection.js';

/** What the admin listener acts through. */
export interface AdminParts {
  store: Store;
  sealer: Sealer;
  directory: SessionDirectory;
  endings: EndingsService;
  epoch: PolicyEpoch;
  audit: AuditLog;
}

/** The endpoints of the admin listener; the public server knows nothing of them. */
@Module({ controllers: [SessionsController, EndingsController, EpochController, ServiceController] })
export class AdminModule {
  static with(parts: AdminParts, openApi: OpenApi, logger: Logger): DynamicModule {
    const providers = [
      { provide: SessionDirectory, useValue: parts.directory },
      { provide: EndingsService, useValue: parts.endings },
      { provide: PolicyEpoch, useValue: parts.epoch },
      { provide: AuditLog, useValue: parts.audit },
      { provide: Confirmations, useValue: new Confirmations(parts.store, new ServerSeal(parts.sealer)) },
      { provide: OpenApi, useValue: openApi },
      { provide: LOGGER, useValue: logger },
      { provide: STORE, useValue: parts.store },
    ];
    return { module: AdminModule, providers };
  }
}
