//! The keys that check tokens, set up once.

use crate::config::Config;
use crate::protocol::token::TokenVerifier;

/// Connection and subscription tokens.
pub(super) struct Tokens {
    pub(super) connection: TokenVerifier,
    subscription: Option<TokenVerifier>,
}

impl Tokens {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            connection: TokenVerifier::new(&config.client.token),
            subscription: config
                .client
                .subscription_token
                .as_ref()
                .map(TokenVerifier::new),
        }
    }

    /// Subscription tokens are checked like connection tokens unless they have keys of their own.
    pub(super) fn subscription(&self) -> &TokenVerifier {
        self.subscription.as_ref().unwrap_or(&self.connection)
    }
}
