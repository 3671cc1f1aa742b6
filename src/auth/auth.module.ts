import { Module } from '@nestjs/common';
import { BackchannelLogoutController } from './backchannel-logout.controller.js';
import { CallbackController } from './callback.controller.js';
import { EventsController } from './events.controller.js';
import { FrontchannelLogoutController } from './frontchannel-logout.controller.js';
import { LoginController } from './login.controller.js';
import { LogoutController } from './logout.controller.js';
import { MeController } from './me.controller.js';
import { UserSessionsController } from './user-sessions.controller.js';

@Module({
  controllers: [
    LoginController,
    CallbackController,
    MeController,
    LogoutController,
    UserSessionsController,
    EventsController,
    BackchannelLogoutController,
    FrontchannelLogoutController,
  ],
})
export class AuthModule {}
