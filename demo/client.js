// @ts-check

/**
 * How the demo's provider knows Cloakroom.
 *
 * @param {object} options
 * @param {string} options.clientId
 * @param {string} options.clientSecret
 * @param {string} options.publicUrl of Cloakroom, without a slash at the end
 * @returns {import('oidc-provider').ClientMetadata}
 */
export function demoClient({ clientId, clientSecret, publicUrl }) {
  return {
    client_id: clientId,
    client_name: 'Cloakroom demo',
    client_secret: clientSecret,
    redirect_uris: [`${publicUrl}/auth/callback`],
    post_logout_redirect_uris: [`${publicUrl}/auth/logout`],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'client_secret_basic',
  };
}
