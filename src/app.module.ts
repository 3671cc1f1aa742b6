import { Module, type DynamicModule } from '@nestjs/common';
import { AuthModule } from './auth/auth.module.js';
import { BackchannelLogoutService } from './auth/backchannel-logout.service.js';
import { CallbackService } from './auth/callback.service.js';
import { EventsService } from './auth/events.service.js';
import { FrontchannelLogoutService } from './auth/frontchannel-logout.service.js';
import { LoginService } from './auth/login.service.js';
import { LogoutService } from './auth/logout.service.js';
import { UserSessionsService } from './auth/user-sessions.service.js';
import type { Config } from './config/config.js';
import { CONFIG } from './config/token.js';
import { HealthModule } from './health/health.module.js';
import { HealthService } from './health/health.service.js';
import { TrustedProxies } from './http/client-address.js';
import type { Services } from './services.js';
import { SessionCookie } from './session/session-cookie.js';
import { SessionsService } from './session/sessions.service.js';

/** The endpoints that Cloakroom answers itself. */
@Module({ imports: [AuthModule, HealthModule] })
export class AppModule {
  static with(config: Config, services: Services): DynamicModule {
    const providers = [
      { provide: CONFIG, useValue: config },
      { provide: LoginService, useValue: services.login },
      { provide: CallbackService, useValue: services.callback },
      { provide: LogoutService, useValue: services.logout },
      { provide: UserSessionsService, useValue: services.userSessions },
      { provide: EventsService, useValue: services.events },
      { provide: BackchannelLogoutService, useValue: services.backchannelLogout },
      { provide: FrontchannelLogoutService, useValue: services.frontchannelLogout },
      { provide: TrustedProxies, useValue: services.trusted },
      { provide: SessionsService, useValue: services.sessions },
      { provide: SessionCookie, useValue: services.cookie },
      { provide: HealthService, useValue: services.health },
    ];
    return { module: AppModule, global: true, providers, exports: providers };
  }
}
