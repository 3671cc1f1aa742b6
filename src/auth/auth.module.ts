import { Module } from '@nestjs/common';
import { CallbackController } from './callback.controller.js';
import { LoginController } from './login.controller.js';
import { LogoutController } from './logout.controller.js';
import { MeController } from './me.controller.js';

@Module({ controllers: [LoginController, CallbackController, MeController, LogoutController] })
export class AuthModule {}
