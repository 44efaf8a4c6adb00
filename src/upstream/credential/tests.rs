use std::collections::VecDeque;
use std::fs;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;

use super::*;
use crate::clock;
use crate::domain::secret::Secret;

/// A token service that gives the answers it was told, and remembers what it was asked.
#[derive(Default)]
struct FakeService {
    answers: Mutex<VecDeque<Result<(u16, String), String>>>,
    asked: Mutex<Vec<Asked>>,
}

#[derive(Debug, Clone)]
struct Asked {
    method: Method,
    url: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: String,
}

#[async_trait]
impl TokenHttp for FakeService {
    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: &[u8],
    ) -> Result<(u16, Vec<u8>), String> {
        let body = String::from_utf8_lossy(body).into_owned();
        self.asked.lock().push(Asked { method, url: url.to_owned(), headers: headers.to_vec(), body });
        // Long enough for everybody else to come and wait.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let answer = self.answers.lock().pop_front();
        match answer {
            Some(answer) => answer.map(|(status, body)| (status, body.into_bytes())),
            None => std::future::pending().await,
        }
    }
}

impl FakeService {
    fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn gives(&self, token: &str, lifetime_s: u64) {
        let body = format!(r#"{{"access_token":"{token}","expires_in":{lifetime_s}}}"#);
        self.answers.lock().push_back(Ok((200, body)));
    }

    fn refuses(&self) {
        let body = r#"{"error":"invalid_client","error_description":"s3cret","error_codes":[7000215]}"#;
        self.answers.lock().push_back(Ok((401, body.to_owned())));
    }

    fn times_asked(&self) -> usize {
        self.asked.lock().len()
    }

    fn live(self: &Arc<Self>, entra: Entra) -> LiveCredential {
        LiveCredential::new(&Credential::Entra(entra), Arc::clone(self) as Arc<dyn TokenHttp>)
    }
}

fn client_secret() -> Entra {
    Entra::ClientSecret {
        authority: "https://login.example".to_owned(),
        tenant_id: "tenant".to_owned(),
        client_id: "app".to_owned(),
        client_secret: Secret::new("s3cret&more"),
        scope: "https://cognitiveservices.azure.com/.default".to_owned(),
    }
}

fn bearer(token: &str) -> Authorization {
    Authorization::Bearer(Secret::new(token))
}

const fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

#[tokio::test]
async fn keys_are_shown_as_they_are() {
    let service = FakeService::new();
    let key = Authorization::ApiKey(Secret::new("k"));
    for (credential, shown) in
        [(Credential::None, Authorization::None), (Credential::ApiKey(Secret::new("k")), key.clone())]
    {
        let live = LiveCredential::new(&credential, Arc::clone(&service) as Arc<dyn TokenHttp>);
        assert_eq!(live.header(clock::monotonic()).await, Ok(shown));
        assert!(!live.reject(&key, clock::monotonic()), "another try with the same key would go no better");
    }
    assert_eq!(service.times_asked(), 0);
}

#[tokio::test]
async fn a_secret_is_exchanged_once_and_again_before_the_end() {
    let service = FakeService::new();
    let live = service.live(client_secret());
    let start = clock::monotonic();
    service.gives("one", 3_600);
    for after in [0, 1, 3_299] {
        assert_eq!(live.header(start + seconds(after)).await, Ok(bearer("one")), "{after}");
    }
    assert_eq!(service.times_asked(), 1);
    service.gives("two", 3_600);
    assert_eq!(live.header(start + seconds(3_300)).await, Ok(bearer("two")));

    let asked = service.asked.lock()[0].clone();
    assert_eq!(
        (asked.method, asked.url.as_str()),
        (Method::POST, "https://login.example/tenant/oauth2/v2.0/token")
    );
    assert_eq!(
        asked.body,
        "grant_type=client_credentials&client_id=app&\
         scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default&client_secret=s3cret%26more"
    );
    assert_eq!(asked.headers[0].1, "application/x-www-form-urlencoded");
}

#[tokio::test]
async fn all_who_wait_share_one_renewal_and_its_end() {
    let service = FakeService::new();
    let live = service.live(client_secret());
    let now = clock::monotonic();
    service.refuses();
    let ends = join_all((0..50).map(|_| live.header(now))).await;
    assert!(ends.iter().all(Result::is_err), "{ends:?}");
    assert_eq!(service.times_asked(), 1);
    service.gives("one", 3_600);
    let ends = join_all((0..50).map(|_| live.header(now + seconds(2)))).await;
    assert!(ends.iter().all(|end| *end == Ok(bearer("one"))), "{ends:?}");
    assert_eq!(service.times_asked(), 2);
}

#[tokio::test]
async fn while_one_renews_the_others_go_on_with_the_old_token() {
    let service = FakeService::new();
    let live = service.live(client_secret());
    let start = clock::monotonic();
    service.gives("one", 3_600);
    live.header(start).await.expect("one");
    service.gives("two", 3_600);
    let ends = join_all((0..5).map(|_| live.header(start + seconds(3_400)))).await;
    assert_eq!(ends[0], Ok(bearer("two")));
    assert!(ends[1..].iter().all(|end| *end == Ok(bearer("one"))), "{ends:?}");
    assert_eq!(service.times_asked(), 2);
}

#[tokio::test]
async fn a_failing_renewal_harms_only_when_the_token_has_ended() {
    let service = FakeService::new();
    let live = service.live(client_secret());
    let start = clock::monotonic();
    service.gives("one", 3_600);
    live.header(start).await.expect("one");
    // Back-off: 1 s, then 2 s.
    for (after_s, asked) in [(3_400, 2), (3_400, 2), (3_401, 3), (3_402, 3), (3_403, 4)] {
        service.answers.lock().clear();
        service.answers.lock().push_back(Err("connection refused".to_owned()));
        assert_eq!(live.header(start + seconds(after_s)).await, Ok(bearer("one")), "{after_s}");
        assert_eq!(service.times_asked(), asked, "{after_s}");
    }
    service.answers.lock().push_back(Err("connection refused".to_owned()));
    let error = live.header(start + seconds(3_600)).await.expect_err("ended").to_string();
    assert_eq!(error, "login.example can't be asked for a token: connection refused");
    service.answers.lock().clear();
    service.gives("two", 3_600);
    assert_eq!(live.header(start + seconds(3_700)).await, Ok(bearer("two")));
}

#[tokio::test]
async fn errors_hold_no_secret() {
    let service = FakeService::new();
    let live = service.live(client_secret());
    service.refuses();
    let error = live.header(clock::monotonic()).await.expect_err("refused");
    assert_eq!(error.to_string(), "login.example gives no token: status 401 invalid_client AADSTS7000215");
    assert!(!format!("{error:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_refused_token_is_forgotten_unless_it_is_new() {
    let service = FakeService::new();
    let live = service.live(client_secret());
    let start = clock::monotonic();
    service.gives("one", 3_600);
    service.gives("two", 3_600);
    live.header(start).await.expect("one");
    assert!(!live.reject(&bearer("one"), start + seconds(29)), "a new one would be refused too");
    assert_eq!(live.header(start + seconds(29)).await, Ok(bearer("one")));
    assert!(live.reject(&bearer("one"), start + seconds(30)));
    assert_eq!(live.header(start + seconds(30)).await, Ok(bearer("two")));
    assert!(live.reject(&bearer("one"), start + seconds(31)), "somebody has renewed it already");
    assert_eq!(live.header(start + seconds(31)).await, Ok(bearer("two")), "and the new one stays");
}

#[tokio::test]
async fn a_silent_service_is_not_waited_for() {
    let service = FakeService::new();
    let proof = entra::Proof::Secret(Secret::new("s"));
    let grant = Grant::exchange("https://login.example", "t", "c", "s", proof);
    let issued = Issued::with_timeout(grant, service, Duration::from_millis(1));
    let error = issued.token(clock::monotonic()).await.expect_err("silent");
    assert_eq!(error, CredentialError::Timeout { service: "login.example".to_owned() });
}

#[tokio::test]
async fn who_leaves_while_renewing_stops_nobody() {
    let service = FakeService::new();
    let live = service.live(client_secret());
    let now = clock::monotonic();
    let cut_off = tokio::time::timeout(Duration::from_millis(1), live.header(now)).await;
    assert!(cut_off.is_err());
    service.gives("one", 3_600);
    assert_eq!(live.header(now).await, Ok(bearer("one")));
}

#[tokio::test]
async fn a_managed_identity_asks_the_machine() {
    for (client_id, query) in [
        (None, "api-version=2018-02-01&resource=https%3A%2F%2Fai.azure.com"),
        (Some("id"), "api-version=2018-02-01&resource=https%3A%2F%2Fai.azure.com&client_id=id"),
    ] {
        let service = FakeService::new();
        let live = service.live(Entra::ManagedIdentity {
            endpoint: "http://169.254.169.254/metadata/identity/oauth2/token".to_owned(),
            client_id: client_id.map(str::to_owned),
            scope: "https://ai.azure.com/.default".to_owned(),
        });
        service
            .answers
            .lock()
            .push_back(Ok((200, r#"{"access_token":"m","expires_in":"86400"}"#.to_owned())));
        assert_eq!(live.header(clock::monotonic()).await, Ok(bearer("m")));
        let asked = service.asked.lock()[0].clone();
        assert_eq!(asked.url, format!("http://169.254.169.254/metadata/identity/oauth2/token?{query}"));
        assert_eq!((asked.method, asked.body.as_str()), (Method::GET, ""));
        assert_eq!(asked.headers, [(HeaderName::from_static("metadata"), HeaderValue::from_static("true"))]);
    }
}

#[tokio::test]
async fn a_federated_token_is_read_for_each_exchange() {
    let folder = tempfile::tempdir().expect("a folder");
    let token_file = folder.path().join("token");
    let service = FakeService::new();
    let live = service.live(Entra::FederatedTokenFile {
        authority: "https://login.example/".to_owned(),
        tenant_id: "t".to_owned(),
        client_id: "app".to_owned(),
        token_file: token_file.clone(),
        scope: "s".to_owned(),
    });
    let start = clock::monotonic();
    assert!(matches!(live.header(start).await, Err(CredentialError::File { .. })));
    for (after_s, assertion) in [(10, "first"), (4_000, "second")] {
        fs::write(&token_file, format!("{assertion}\n")).expect("written");
        service.gives(assertion, 3_600);
        assert_eq!(live.header(start + seconds(after_s)).await, Ok(bearer(assertion)));
        let body = service.asked.lock().last().expect("asked").body.clone();
        let kind = "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
        assert!(body.contains(kind) && body.ends_with(&format!("&client_assertion={assertion}")), "{body}");
    }
}

#[tokio::test]
async fn a_token_file_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    let live = FakeService::new().live(Entra::TokenFile { path: path.clone() });
    let start = clock::monotonic();
    assert!(matches!(live.header(start).await, Err(CredentialError::File { .. })));
    fs::write(&path, "one\n").expect("written");
    assert_eq!(live.header(start).await, Ok(bearer("one")), "nothing was held: looked at once more");
    assert!(!live.reject(&bearer("one"), start), "the file has not changed");
    fs::write(&path, "second").expect("written");
    assert_eq!(
        live.header(start + Duration::from_millis(999)).await,
        Ok(bearer("one")),
        "looked at a moment ago"
    );
    assert_eq!(live.header(start + seconds(1)).await, Ok(bearer("second")));
    fs::write(&path, "3").expect("written");
    assert!(live.reject(&bearer("second"), start + seconds(1)));
    assert_eq!(live.header(start + seconds(1)).await, Ok(bearer("3")), "looked at once after a refusal");
    fs::remove_file(&path).expect("removed");
    assert_eq!(live.header(start + seconds(9)).await, Ok(bearer("3")), "the last that could be read");
}
