//! Whose fault an upstream's error is: what decides about a retry, another deployment, and what the client hears.

/// Whose fault an upstream's error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Our credential is refused: our trouble, never the client's key.
    Auth,
    /// The deployment or its path is not there: our trouble.
    DeploymentMissing,
    /// Money or quota of our account ran out: our trouble, and no retry on this account helps.
    Quota,
    /// Too much at once: it wants us to come again later.
    Wait,
    /// The request alone is more than this deployment takes in a minute: another one may take it.
    TooLarge,
    /// It failed by itself: the next try may succeed.
    Transient,
    /// The request is longer than this model's context.
    ContextLength,
    /// A content filter has stopped it.
    ContentFilter,
    /// The request asks for something that this model does not know.
    Unsupported,
    /// Everything else that is wrong with the request.
    Told,
}

impl Fault {
    /// All of them, for metrics that are born at 0.
    pub const ALL: [Self; 10] = [
        Self::Auth,
        Self::DeploymentMissing,
        Self::Quota,
        Self::Wait,
        Self::TooLarge,
        Self::Transient,
        Self::ContextLength,
        Self::ContentFilter,
        Self::Unsupported,
        Self::Told,
    ];

    /// The name in what is said of a breaker.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::DeploymentMissing => "deployment_missing",
            Self::Quota => "quota",
            Self::Wait => "wait",
            Self::TooLarge => "too_large",
            Self::Transient => "transient",
            Self::ContextLength => "context_length",
            Self::ContentFilter => "content_filter",
            Self::Unsupported => "unsupported",
            Self::Told => "told",
        }
    }

    /// The code in clients' errors, logs and metric labels.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Auth => "upstream_auth_failed",
            Self::DeploymentMissing => "upstream_deployment_missing",
            Self::Quota => "upstream_quota",
            Self::Wait => "upstream_rate_limited",
            Self::TooLarge => "upstream_too_large",
            Self::Transient => "upstream_failed",
            Self::ContextLength => "context_length_exceeded",
            Self::ContentFilter => "content_filter",
            Self::Unsupported | Self::Told => "upstream_refused",
        }
    }

    /// Whether it is the operator's business alone: the client hears that a deployment failed, not the upstream's words.
    pub const fn is_our_trouble(self) -> bool {
        matches!(self, Self::Auth | Self::DeploymentMissing | Self::Quota)
    }
}
