use std::fs;

use serde_json::json;

use super::super::testing::FakeServer;
use super::*;
use crate::domain::catalog::{AzureV1, Dialect, Entra, Training};

type Answers = Vec<(u16, &'static str, String)>;

fn deployment(name: &str, state: &str) -> Value {
    json!({
        "name": name, "sku": {"name": "Standard", "capacity": 50},
        "properties": {"provisioningState": state, "model": {"name": "gpt-4.1.ft-0a1b", "version": "1"}},
        "systemData": {"createdAt": "2026-01-01T00:00:00Z"},
    })
}

fn busy() -> (u16, &'static str, String) {
    let error =
        json!({"error": {"code": "RequestConflict", "message": "Another operation is being performed"}});
    (409, "", error.to_string())
}

/// A resource manager that gives these answers, and what is asked of it.
struct Managed {
    server: FakeServer,
    upstream: Arc<super::super::Upstream>,
    _token: tempfile::TempDir,
}

impl Managed {
    async fn answering(answers: impl FnOnce(&str) -> Answers) -> Self {
        let server = FakeServer::answering_with(|address| answers(&format!("http://{address}"))).await;
        let address = server.address;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        fs::write(&path, "t0ken").expect("written");
        let account = ArmAccount {
            endpoint: format!("http://{address}/arm").into(),
            subscription_id: "s".into(),
            resource_group: "g".into(),
            account: "acme".into(),
            api_version: "2025-09-01".into(),
            credential: Entra::TokenFile { path },
            poll: Duration::from_secs(600),
        };
        let training = Training { arm: Some(account), ..Training::default() };
        let upstream = server.upstream(Dialect::AzureV1(AzureV1::default()), training);
        Self { server, upstream, _token: folder }
    }

    fn arm(&self) -> &Arm {
        self.upstream.arm().expect("an account")
    }

    fn lines(&self) -> Vec<String> {
        self.server.asked().into_iter().map(|asked| asked.line).collect()
    }
}

const BASE: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/acme/deployments";

#[tokio::test]
async fn a_deployment_is_made_followed_and_taken_away() {
    let managed = Managed::answering(|_| {
        vec![
            (
                201,
                "azure-asyncoperation: http://elsewhere/x\r\n",
                deployment("support-ft", "Creating").to_string(),
            ),
            (200, "", deployment("support-ft", "Succeeded").to_string()),
            (202, "", String::new()),
            (204, "", String::new()),
            (404, "", json!({"error": {"code": "ResourceNotFound", "message": "gone"}}).to_string()),
        ]
    })
    .await;
    let arm = managed.arm();
    let made = arm.put("support-ft", "gpt-4.1.ft-0a1b", "Standard", 50).await.expect("begun");
    assert_eq!((made.state, made.operation.as_deref()), (ArmState::Coming, Some("http://elsewhere/x")));
    assert_eq!(arm.get("support-ft").await.expect("there").state, ArmState::Stands);
    assert_eq!(arm.delete("support-ft").await, Ok(()));
    assert_eq!(arm.delete("support-ft").await, Ok(()), "it was not there");
    assert_eq!(arm.get("support-ft").await, Err(TrainerError::NotFound("gone".to_owned())));
    let one = format!("/arm{BASE}/support-ft?api-version=2025-09-01");
    let want = ["PUT", "GET", "DELETE", "DELETE", "GET"].map(|method| format!("{method} {one}"));
    assert_eq!(managed.lines(), want);
    let asked = &managed.server.asked()[0];
    assert!(asked.head.contains("authorization: bearer t0ken"), "its own token: {}", asked.head);
    let body: Value = serde_json::from_slice(&asked.body).expect("JSON");
    assert_eq!(body["sku"], json!({"name": "Standard", "capacity": 50}));
    let elsewhere = arm.operation("http://elsewhere/x").await.expect_err("another host");
    assert!(matches!(elsewhere, TrainerError::Unreadable(_)), "{elsewhere:?}");
    assert_eq!(managed.lines().len(), 5, "our token went nowhere else");
}

#[tokio::test]
async fn the_list_is_read_to_its_end_and_never_elsewhere() {
    let managed = Managed::answering(|own| {
        let next = |address: String| json!({"value": [deployment("a", "Succeeded")], "nextLink": address});
        vec![
            (200, "", next(format!("{own}/arm/next?$skiptoken=2")).to_string()),
            (200, "", json!({"value": [deployment("b", "Creating")]}).to_string()),
            (200, "", next("http://127.0.0.2:1/steal".to_owned()).to_string()),
            (200, "", json!({"value": "none"}).to_string()),
        ]
    })
    .await;
    let all = managed.arm().list().await.expect("a list");
    assert_eq!(all.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(managed.lines()[1], "GET /arm/next?$skiptoken=2");
    for _ in 0..2 {
        let error = managed.arm().list().await.expect_err("half a list is none");
        assert!(matches!(error, TrainerError::Unreadable(_)), "{error:?}");
    }
}

#[tokio::test]
async fn another_operation_is_waited_for_but_not_for_ever() {
    let ok = || (200, "", deployment("d", "Succeeded").to_string());
    let mut managed =
        Managed::answering(|_| vec![busy(), busy(), ok(), busy(), busy(), busy(), busy(), busy()]).await;
    let upstream = Arc::get_mut(&mut managed.upstream).expect("ours alone");
    upstream.arm.as_mut().expect("an account").waits = [Duration::from_millis(1); 4];
    assert!(managed.arm().get("d").await.is_ok());
    let error = managed.arm().delete("d").await.expect_err("still busy");
    assert!(error.may_go_well_later() && !error.may_have_been_done(), "{error:?}");
    assert_eq!(managed.lines().len(), 8);
}

#[tokio::test]
async fn all_who_ask_take_turns() {
    let answers = (0..6).map(|_| (200, "", deployment("d", "Succeeded").to_string())).collect();
    let managed = Managed::answering(|_| answers).await;
    let all = futures_util::future::join_all((0..6).map(|_| managed.arm().get("d"))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
}
