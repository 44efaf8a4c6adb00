//! Where a provider listens, from a base URL.

use std::net::IpAddr;

use url::{Host, Url};

use crate::domain::catalog::Address;

/// What stands in front of a socket's path.
pub(super) const UNIX_SCHEME: &str = "unix:";
/// The paths of Azure's APIs, which the dialect adds by itself.
const AZURE_PATHS: [&str; 2] = ["/openai/v1", "/openai"];

/// A base URL taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseUrl {
    pub(super) address: Address,
    /// Empty, or `/v1`, never with a slash at its end.
    pub(super) base_path: String,
    /// The value of `Host`.
    pub(super) authority: String,
}

impl BaseUrl {
    /// Takes `http://…` or `https://…` apart. The error never repeats the text: a password may be in it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let url =
            Url::parse(text.trim()).map_err(|error| format!("no URL ({error}): write https://HOST/PATH"))?;
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            other => return Err(format!("the scheme is https or http, not {other:?}")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("no user or password in a URL: use api_key".to_owned());
        }
        if url.query().is_some() {
            return Err("no query in a base URL: an API version goes into api_version".to_owned());
        }
        if url.fragment().is_some() {
            return Err("no #fragment in a base URL".to_owned());
        }
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        };
        // Without a name to check, pingora would take any certificate.
        if host.is_empty() {
            return Err("no host: write https://HOST/PATH".to_owned());
        }
        let port = url.port_or_known_default().filter(|port| *port != 0).ok_or("port 0 leads nowhere")?;
        let bracketed = url.host_str().unwrap_or(&host);
        let authority = match url.port() {
            Some(port) => format!("{bracketed}:{port}"),
            None => bracketed.to_owned(),
        };
        let base_path = url.path().trim_end_matches('/').to_owned();
        Ok(Self { address: Address::Host { host, port, tls }, base_path, authority })
    }

    /// As [`BaseUrl::parse`]; a path that the dialect adds by itself is taken off.
    pub(super) fn parse_azure(text: &str) -> Result<Self, String> {
        let mut base = Self::parse(text)?;
        if let Some(kept) = AZURE_PATHS.iter().find_map(|path| base.base_path.strip_suffix(path)) {
            base.base_path = kept.trim_end_matches('/').to_owned();
        }
        if base.base_path.contains("/openai/deployments") {
            return Err(
                "write only the resource, https://RESOURCE.openai.azure.com: the deployment is named in \
                        [deployments]"
                    .to_owned(),
            );
        }
        Ok(base)
    }

    /// As [`BaseUrl::parse`], or `unix:PATH`. Our worker's paths stand under `/v1`, said or not.
    pub(super) fn parse_candle(text: &str) -> Result<Self, String> {
        if let Some(path) = text.trim().strip_prefix(UNIX_SCHEME) {
            if path.is_empty() {
                return Err("write unix:PATH".to_owned());
            }
            let address = Address::Unix(path.into());
            return Ok(Self { address, base_path: "/v1".to_owned(), authority: "localhost".to_owned() });
        }
        let mut base = Self::parse(text)?;
        if base.base_path.is_empty() {
            base.base_path = "/v1".to_owned();
        }
        Ok(base)
    }

    /// Whether what is sent there can be read on a network between us.
    pub(super) fn crosses_a_network_in_clear(&self) -> bool {
        match &self.address {
            Address::Host { host, tls: false, .. } => !is_local(host),
            Address::Host { tls: true, .. } | Address::Unix(_) => false,
        }
    }
}

/// Whether a host is this machine by its name alone.
pub(super) fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(host: &str, port: u16, tls: bool) -> Address {
        Address::Host { host: host.to_owned(), port, tls }
    }

    #[test]
    fn good_urls() {
        for (text, address, path, authority) in [
            ("https://api.openai.com/v1", host("api.openai.com", 443, true), "/v1", "api.openai.com"),
            ("https://api.openai.com:443/v1/", host("api.openai.com", 443, true), "/v1", "api.openai.com"),
            ("http://10.0.0.7:8090", host("10.0.0.7", 8090, false), "", "10.0.0.7:8090"),
            ("http://[::1]:9/a/b", host("::1", 9, false), "/a/b", "[::1]:9"),
            (" https://EXAMPLE.com ", host("example.com", 443, true), "", "example.com"),
        ] {
            let base = BaseUrl::parse(text).expect(text);
            assert_eq!(
                (&base.address, &*base.base_path, &*base.authority),
                (&address, path, authority),
                "{text}"
            );
        }
    }

    #[test]
    fn azure_paths_are_left_to_the_dialect() {
        for (text, path) in [
            ("https://r.openai.azure.com", ""),
            ("https://r.openai.azure.com/", ""),
            ("https://r.openai.azure.com/openai", ""),
            ("https://r.openai.azure.com/openai/v1/", ""),
            ("https://apim.example.com/team/openai/v1", "/team"),
        ] {
            assert_eq!(BaseUrl::parse_azure(text).expect(text).base_path, path, "{text}");
        }
        assert!(BaseUrl::parse_azure("https://r.openai.azure.com/openai/deployments/x").is_err());
    }

    #[test]
    fn candle_may_be_a_socket() {
        assert_eq!(
            BaseUrl::parse_candle("unix:/run/w.sock").expect("a socket").address,
            Address::Unix("/run/w.sock".into())
        );
        assert_eq!(BaseUrl::parse_candle("http://h:1").expect("a URL").base_path, "/v1");
        assert_eq!(BaseUrl::parse_candle("http://h:1/models/v1").expect("a URL").base_path, "/models/v1");
        assert!(BaseUrl::parse_candle("unix:").is_err());
    }

    #[test]
    fn bad_urls_are_refused_without_repeating_them() {
        for (text, says) in [
            ("api.openai.com/v1", "no URL"),
            ("ftp://example.com", "scheme"),
            ("https://user:hunter2@example.com", "no user"),
            ("https://example.com/v1?key=hunter2", "no query"),
            ("https://example.com/#hunter2", "#fragment"),
            ("https://", "no URL"),
            ("http://example.com:0", "port 0"),
            ("unix:/x", "scheme"),
            ("", "no URL"),
        ] {
            let error = BaseUrl::parse(text).expect_err(text);
            assert!(error.contains(says) && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn keys_in_clear_text_are_noticed_only_beyond_this_machine() {
        for (text, clear) in [
            ("http://gpu:1", true),
            ("http://127.0.0.1:1", false),
            ("http://localhost:1", false),
            ("https://gpu", false),
        ] {
            assert_eq!(BaseUrl::parse(text).expect(text).crosses_a_network_in_clear(), clear, "{text}");
        }
    }
}
