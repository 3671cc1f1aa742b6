import { z } from 'zod';
import { setting } from './setting.js';

/** What pages of an upstream may need of the headers that every answer gets. */
export const pageSecurity = z
  .strictObject({
    frameAncestors: setting(z.enum(['none', 'self']).prefault('none'), {
      description:
        'Which pages may show an answer in a frame: `none`, or `self`, those of `publicUrl`. Errors of Cloakroom stay unframed.',
      example: 'self',
    }),
    referrerPolicy: setting(
      z.enum(['no-referrer', 'same-origin', 'strict-origin-when-cross-origin']).prefault('no-referrer'),
      {
        description:
          'What pages that come through this route tell about themselves. With `no-referrer` browsers send `Origin: null` with ' +
          'the forms of such a page, which `csrf` refuses; a page with forms needs `same-origin`.',
        example: 'same-origin',
      },
    ),
  })
  .prefault({})
  .meta({
    description:
      "Security headers for what a page needs. An upstream's own `Content-Security-Policy` always passes, beside that of Cloakroom.",
  });
