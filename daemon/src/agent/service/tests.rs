use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;
use xdpgate_api::v1::firewall_server::Firewall as _;

use super::*;

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(10);

fn service() -> FirewallService {
    FirewallService::new(Arc::new(Firewall::loader().rehearse().0))
}

async fn waits(call: impl Future) -> bool {
    timeout(SHORT, call).await.is_err()
}

#[tokio::test]
async fn what_computes_for_long_waits_for_its_turn_and_nothing_else_does() {
    let service = service();
    let plan = || {
        service.plan_policy(Request::new(v1::PlanPolicyRequest {
            yaml: "version: 1".to_owned(),
        }))
    };
    let evaluate = || service.evaluate(Request::new(v1::EvaluateRequest::default()));
    let others = Arc::clone(&service.0.computing);
    let turns = others.acquire_many(COMPUTING_AT_ONCE as u32).await;
    assert!(waits(plan()).await && waits(evaluate()).await);
    let status = service.get_status(Request::new(v1::GetStatusRequest {}));
    timeout(LONG, status)
        .await
        .expect("it does not wait")
        .expect("a status");
    drop(turns);
    plan().await.expect("its turn");
    evaluate().await.expect("its turn");
}

/// A call that is given up goes on where it computes, and so does its turn.
#[tokio::test]
async fn a_turn_lasts_as_long_as_it_is_computed() {
    let service = service();
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let given_up = service.run_in_turn(move |_| {
        let _ = ends.recv_timeout(LONG);
        Ok(())
    });
    assert!(waits(given_up).await);
    let left = || service.0.computing.available_permits();
    assert_eq!(left(), COMPUTING_AT_ONCE - 1);
    drop(end);
    let back = async {
        while left() < COMPUTING_AT_ONCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, back).await.expect("it is over");
}
