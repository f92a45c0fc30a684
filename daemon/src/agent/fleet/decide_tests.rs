use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use sha2::{Digest, Sha256};

use super::*;

fn state(epoch: &str, sequence: u64) -> State {
    State {
        epoch: epoch.to_owned(),
        sequence,
        hash: vec![7; 32],
        mode: 2,
        signature: Vec::new(),
    }
}

fn held(epoch: &str, sequence: u64) -> Held {
    Held::default().after(&state(epoch, sequence), jiff::Timestamp::UNIX_EPOCH)
}

fn reason(checked: Result<PolicyHash, Refusal>) -> Option<Reason> {
    checked.err().map(|refusal| refusal.reason)
}

#[test]
fn an_older_state_is_refused_and_the_same_is_not() {
    let held = held("a", 5);
    for (sequence, expected) in [(4, Some(Reason::Stale)), (5, None), (6, None)] {
        assert_eq!(reason(held.check(&state("a", sequence), None)), expected);
    }
    // What it had is known to the controller again.
    let told = held.message().expect("a state");
    assert_eq!((told.hash, told.mode), (vec![7; 32], 2));
    let mut short = state("a", 9);
    short.hash.pop();
    assert_eq!(reason(held.check(&short, None)), Some(Reason::Hash));
}

#[test]
fn another_store_begins_anew_and_the_former_does_not_come_back() {
    let first = held("a", 500);
    assert_eq!(reason(first.check(&state("b", 3), None)), None);
    let second = first.after(&state("b", 3), jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(
        reason(second.check(&state("a", 499), None)),
        Some(Reason::Stale)
    );
    assert_eq!(
        reason(second.check(&state("b", 2), None)),
        Some(Reason::Stale)
    );
    // A store that is restored may go on.
    assert_eq!(reason(second.check(&state("a", 500), None)), None);
    let third = second.after(&state("a", 501), jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(third.past, [("b".to_owned(), 3)]);
    let mut many = third;
    for n in 0..40 {
        many = many.after(&state(&format!("e{n}"), 1), jiff::Timestamp::UNIX_EPOCH);
    }
    assert_eq!(many.past.len(), MOST_PAST);
}

#[test]
fn r123_only_what_the_trusted_key_signed_is_taken() {
    let (ours, theirs) = ([1; 32], [2; 32]).into_iter_keys();
    let trusted = ours.verifying_key();
    let held = Held::default();
    let signed = |key: &SigningKey, state: &State| State {
        signature: key.sign(&signed_bytes(state)).to_bytes().to_vec(),
        ..state.clone()
    };
    let plain = state("a", 1);
    assert_eq!(reason(held.check(&plain, None)), None);
    assert_eq!(
        reason(held.check(&plain, Some(&trusted))),
        Some(Reason::Signature)
    );
    assert_eq!(
        reason(held.check(&signed(&ours, &plain), Some(&trusted))),
        None
    );
    let wrong = signed(&theirs, &plain);
    assert_eq!(
        reason(held.check(&wrong, Some(&trusted))),
        Some(Reason::Signature)
    );
    // Every field is signed.
    let good = signed(&ours, &plain);
    for altered in [
        State {
            epoch: "b".to_owned(),
            ..good.clone()
        },
        State {
            sequence: 2,
            ..good.clone()
        },
        State {
            hash: vec![8; 32],
            ..good.clone()
        },
        State {
            mode: 1,
            ..good.clone()
        },
        State {
            signature: good.signature[1..].to_vec(),
            ..good.clone()
        },
    ] {
        let refused = reason(held.check(&altered, Some(&trusted)));
        assert_eq!(refused, Some(Reason::Signature), "{altered:?}");
    }
}

trait Keys {
    fn into_iter_keys(self) -> (SigningKey, SigningKey);
}

impl Keys for ([u8; 32], [u8; 32]) {
    fn into_iter_keys(self) -> (SigningKey, SigningKey) {
        (
            SigningKey::from_bytes(&self.0),
            SigningKey::from_bytes(&self.1),
        )
    }
}

#[test]
fn waits_grow_up_to_a_bound_and_are_any_part_of_it() {
    let seconds = |attempt, chance| {
        wait(
            attempt,
            Duration::from_secs(1),
            Duration::from_secs(60),
            chance,
        )
        .as_secs_f64()
    };
    assert_eq!(
        [0, 1, 2, 5, 6, 7, 99].map(|n| seconds(n, 1.0)),
        [1.0, 2.0, 4.0, 32.0, 60.0, 60.0, 60.0]
    );
    assert_eq!([0.0, 0.5].map(|chance| seconds(6, chance)), [0.0, 30.0]);
}

#[test]
fn a_certificate_is_renewed_after_two_thirds_and_before_it_expires() {
    assert_eq!(renew_at((0, 1200), 0.0), 800);
    assert_eq!(renew_at((0, 1200), 1.0), 900);
    assert_eq!(renew_at((5, 5), 1.0), 5);
}

#[test]
fn a_token_serves_once_and_only_where_it_is_needed() {
    let authority = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        params
            .self_signed(&key)
            .expect("a certificate")
            .der()
            .to_vec()
    };
    let token = |secret: &str, authority: &[u8]| {
        let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(authority));
        JoinToken::parse(&format!("xgj1.id.{secret}.{digest}")).expect("a token")
    };
    let (ours, other) = (authority("ours"), authority("other"));
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([]).expect("no names");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2030, 1, 1);
    let own = params
        .self_signed(&key)
        .expect("a certificate")
        .der()
        .to_vec();
    let (first, second) = (token("first", &ours), token("second", &ours));
    let mut identity = Identity::new("node-7".to_owned(), String::new(), first.digest());
    identity.issued(&[own], &[ours]);
    let (valid, expired) = (1_600_000_000, 1_900_000_000);
    let again = Next::Join {
        former: Some("node-7".to_owned()),
    };
    let anew = Next::Join { former: None };
    let wait = |next: &Next| matches!(next, Next::Wait(_));

    assert_eq!(next(None, Some(&first), valid, false), anew);
    assert!(wait(&next(None, None, valid, false)));
    assert_eq!(next(Some(&identity), None, valid, false), Next::Dial);
    assert_eq!(
        next(Some(&identity), Some(&first), valid, false),
        Next::Dial
    );
    assert_eq!(
        next(Some(&identity), Some(&second), valid, false),
        Next::Dial
    );
    assert_eq!(next(Some(&identity), Some(&second), valid, true), again);
    assert_eq!(next(Some(&identity), Some(&second), expired, false), again);
    let said = next(Some(&identity), Some(&first), expired, false);
    assert!(
        matches!(&said, Next::Wait(why) if why.contains("node-7") && why.contains("2030")),
        "{said:?}"
    );
    // Revoked, and nobody made a token: it asks again at times.
    assert_eq!(next(Some(&identity), None, valid, true), Next::Dial);
    // It goes to another fleet.
    assert_eq!(
        next(Some(&identity), Some(&token("third", &other)), valid, false),
        anew
    );
}
