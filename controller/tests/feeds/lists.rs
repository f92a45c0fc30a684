//! What a list may be, and what becomes of one that may not.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Response;
use xdpgate_controller::feed::{
    FeedContent, FeedHealth, Feeds, Format, Limits, Outcome, Settings, What,
};

use super::fleet::name;
use super::server::{status, with};
use super::{World, admin, audited, data, hosts, settings, url};

fn text(text: impl Into<Body>) -> Response<Body> {
    Response::new(text.into())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn r117_a_feed_that_shrinks_by_90_percent_is_refused_and_the_last_good_one_stays() {
    let mut world = World::new().await;
    let mut events = world.feeds.events();
    world.list().await;
    world.server.text("/list", hosts(0, 10_000));
    assert_eq!(world.run().await, ["list"], "a new feed is run at once");
    assert_eq!(events.try_recv().unwrap().what, What::Replaced);
    assert_eq!(world.health("list").await, FeedHealth::Good);

    world.server.text("/list", hosts(0, 1_000));
    // A run is up to a tenth later than an hour after a good one, and sooner after one that failed.
    for seconds in [4000, 3000, 3000] {
        world.pass(seconds);
        world.run().await;
    }
    let set = world.set("list");
    assert_eq!(
        (set.version, set.entries.len()),
        (1, 10_000),
        "the last good one stays"
    );
    let last = world.last().await;
    assert_eq!(
        (last.outcome, last.entries),
        (Outcome::Refused, Some(1_000))
    );
    let error = last.error.unwrap();
    assert!(
        error.contains("shrank from 10000 entries to 1000"),
        "{error}"
    );
    assert!(error.contains("accept it once"), "{error}");
    assert_eq!(world.health("list").await, FeedHealth::Failing);
    assert_eq!(world.status("list").await.failures, 3);
    let event = events.try_recv().unwrap();
    assert_eq!((event.what, event.set), (What::Refused, Some(name("list"))));
    assert!(events.try_recv().is_err(), "told once, not with each try");

    world.pass(7200);
    world.run().await;
    assert_eq!(
        world.health("list").await,
        FeedHealth::Stale,
        "nothing good for three times every"
    );
    assert_eq!(events.try_recv().unwrap().what, What::Stale);

    // Somebody looks at it, and says that it is right: for this one, and not for what comes after it.
    world
        .feeds
        .accept_once(&admin(), &name("list"), None, world.now)
        .await
        .unwrap();
    assert_eq!(world.run().await, ["list"]);
    let set = world.set("list");
    assert_eq!((set.version, set.entries.len()), (2, 1_000));
    assert_eq!(world.health("list").await, FeedHealth::Good);
    assert_eq!(events.try_recv().unwrap().what, What::Replaced);
    assert_eq!(events.try_recv().unwrap().what, What::Recovered);
    world.server.text("/list", hosts(0, 100));
    world.round().await;
    assert_eq!(world.set("list").version, 2);
    let nothing = world
        .feeds
        .accept_once(&admin(), &name("list"), Some(&name("other")), world.now)
        .await;
    assert!(
        nothing
            .unwrap_err()
            .to_string()
            .contains("nothing that it brought was refused")
    );
    let audited = audited(&world.fleet.core).await;
    assert_eq!(
        (audited["feed.create"], audited["feed.accept"]),
        (1, 1),
        "{audited:?}"
    );
}

/// What a server does, and the word that tells of it.
type Bad = (&'static str, Box<dyn Fn(&World)>, Outcome, &'static str);

#[tokio::test(flavor = "multi_thread")]
async fn r117_what_is_no_list_leaves_the_last_good_one() {
    let mut world = World::new().await;
    let content = FeedContent {
        limits: Limits {
            max_bytes: 64 << 10,
            ..Limits::default()
        },
        ..url([world.server.url("/list")])
    };
    world.put("list", &content).await;
    let serve = |answer: fn() -> Response<Body>| -> Box<dyn Fn(&World)> {
        Box::new(move |world| world.server.serve("/list", move |_| answer()))
    };
    let redirect = |to: &'static str| -> Box<dyn Fn(&World)> {
        Box::new(move |world| {
            world
                .server
                .serve("/list", move |_| with(status(302), "location", to))
        })
    };
    let endless = || -> Response<Body> {
        let piece = Bytes::from(hosts(0, 100));
        let pieces =
            futures_util::stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone()));
        Response::new(Body::from_stream(pieces))
    };
    let trickle = || -> Response<Body> {
        let pieces = futures_util::stream::unfold(0, |n| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from(hosts(n, 1))), n + 1))
        });
        Response::new(Body::from_stream(pieces))
    };
    let silent: Box<dyn Fn(&World)> = Box::new(|world| {
        world
            .server
            .serve_late("/list", Duration::from_secs(60), |_| text("203.0.113.7\n"));
    });
    let (refused, failed) = (Outcome::Refused, Outcome::Failed);
    let bad: Vec<Bad> = vec![
        (
            "a page",
            serve(|| text("\n<!doctype html><p>busy</p>")),
            refused,
            "a page of HTML",
        ),
        (
            "a page that begins as a list",
            serve(|| {
                with(
                    text("203.0.113.7\n"),
                    "content-type",
                    "text/html; charset=utf-8",
                )
            }),
            refused,
            "a page of HTML",
        ),
        (
            "a word",
            serve(|| text("203.0.113.7\nnot found\n")),
            refused,
            "line 2",
        ),
        (
            "a broken line",
            serve(|| text("203.0.113.7\n203.0.113.300\n")),
            refused,
            "line 2",
        ),
        (
            "nothing",
            serve(|| text("")),
            refused,
            "fewer than min_entries",
        ),
        (
            "everybody",
            serve(|| text("0.0.0.0/0\n")),
            refused,
            "shorter than /8",
        ),
        (
            "bytes",
            serve(|| text(vec![b'1', 0xff, 0xfe])),
            refused,
            "not text",
        ),
        (
            "oversize",
            serve(|| text(hosts(0, 10_000))),
            refused,
            "limits.max_bytes 65536",
        ),
        ("endless", serve(endless), refused, "limits.max_bytes 65536"),
        (
            "a bomb",
            serve(|| text(gzip(&vec![b'#'; 20 << 20]))),
            refused,
            "limits.max_bytes 65536",
        ),
        (
            "half of a packed one",
            serve(|| {
                let packed = gzip(hosts(0, 1000).as_bytes());
                with(
                    text(packed[..packed.len() / 2].to_vec()),
                    "content-encoding",
                    "gzip",
                )
            }),
            refused,
            "not whole",
        ),
        (
            "packed otherwise",
            serve(|| with(text("x"), "content-encoding", "br")),
            refused,
            "packed it as \"br\"",
        ),
        (
            "an error with a list in it",
            serve(|| status(500)),
            failed,
            "answered 500",
        ),
        (
            "nothing there",
            serve(|| status(404)),
            failed,
            "answered 404",
        ),
        (
            "not modified, unasked",
            serve(|| status(304)),
            failed,
            "304",
        ),
        ("no answer", silent, failed, "within 2 s"),
        ("a trickle", serve(trickle), failed, "within 2 s"),
        ("a loop", redirect("/list"), failed, "more than 5 redirects"),
        (
            "to the cloud's secrets",
            redirect("http://169.254.169.254/latest"),
            refused,
            "only https",
        ),
        (
            "to them, encrypted",
            redirect("https://169.254.169.254/latest"),
            refused,
            "not an address on the internet",
        ),
        (
            "to what is not encrypted",
            redirect("http://lists.example/a"),
            refused,
            "only https",
        ),
        (
            "to a file",
            redirect("file:///etc/passwd"),
            refused,
            "not a URL",
        ),
        ("to nowhere", redirect("http://["), failed, "no URL"),
    ];
    world.server.text("/list", hosts(0, 500));
    world.run().await;
    for (what, serve, outcome, words) in bad {
        serve(&world);
        assert_eq!(world.round().await, ["list"], "{what}");
        let last = world.last().await;
        let error = last.error.unwrap_or_default();
        assert_eq!(last.outcome, outcome, "{what}: {error}");
        assert!(error.contains(words), "{what}: {error}");
        assert!(!error.contains('\n'), "{what}: {error}");
        assert_eq!(world.set("list").version, 1, "{what}");
        assert_eq!(world.status("list").await.sets.len(), 1);
    }
    // After all that it is read as ever: by way of a redirect, and packed.
    world
        .server
        .serve("/list", |_| with(status(301), "location", "/moved"));
    world.server.serve("/moved", |asked| {
        assert_eq!(asked.header("accept-encoding"), Some("gzip"));
        with(
            text(gzip(hosts(0, 501).as_bytes())),
            "content-encoding",
            "gzip",
        )
    });
    world.round().await;
    assert_eq!(world.last().await.error, None);
    assert_eq!(
        (world.set("list").version, world.set("list").entries.len()),
        (2, 501)
    );
    assert_eq!(world.status("list").await.failures, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn r117_what_has_not_changed_is_not_sent_again() {
    let mut world = World::new().await;
    world.list().await;
    let sent = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&sent);
    world.server.serve("/list", move |asked| {
        if asked.header("if-none-match") == Some("\"one\"") {
            assert_eq!(
                asked.header("if-modified-since"),
                Some("Sat, 22 Aug 2026 03:00:29 GMT")
            );
            return status(304);
        }
        count.fetch_add(1, Ordering::Relaxed);
        let list = with(text(hosts(0, 10)), "etag", "\"one\"");
        with(list, "last-modified", "Sat, 22 Aug 2026 03:00:29 GMT")
    });
    world.run().await;
    for _ in 0..3 {
        world.round().await;
        let set = world.set_status("list", "list").await;
        assert_eq!(set.last_try.unwrap().outcome, Outcome::NotModified);
        let good = set.last_good.unwrap();
        assert_eq!(
            (good.at.as_second(), good.entries),
            (world.now.as_second(), 10),
            "it counts as seen"
        );
    }
    assert_eq!(
        (sent.load(Ordering::Relaxed), world.set("list").version),
        (1, 1)
    );

    // Somebody changed the set by hand: what the feed has is needed again.
    world.fleet.set("list", &["192.0.2.1"]).await;
    world.round().await;
    assert_eq!(
        (sent.load(Ordering::Relaxed), world.set("list").version),
        (2, 3)
    );
    assert_eq!(world.set("list").entries.len(), 10);
    // The feed is another one: the same.
    let content = FeedContent {
        at_least: 1,
        ..url([world.server.url("/list")])
    };
    world.put("list", &content).await;
    world.run().await;
    assert_eq!(
        (sent.load(Ordering::Relaxed), world.set("list").version),
        (3, 3)
    );
    assert_eq!(world.last().await.outcome, Outcome::Unchanged);
}

#[tokio::test(flavor = "multi_thread")]
async fn r117_one_of_several_addresses_has_news() {
    let mut world = World::new().await;
    world
        .put(
            "list",
            &url(["/a", "/b"].map(|path| world.server.url(path))),
        )
        .await;
    let serve = |world: &World, path: &str, tag: &'static str, list: String| {
        world.server.serve(path, move |asked| {
            match asked.header("if-none-match") == Some(tag) {
                true => status(304),
                false => with(text(list.clone()), "etag", tag),
            }
        });
    };
    serve(&world, "/a", "\"a1\"", hosts(0, 10));
    serve(&world, "/b", "\"b1\"", hosts(10, 10));
    world.run().await;
    assert_eq!(world.set("list").entries.len(), 20);
    serve(&world, "/b", "\"b2\"", hosts(10, 11));
    world.round().await;
    assert_eq!(
        world.set("list").entries.len(),
        21,
        "those that have no news are not lost"
    );
    world.round().await;
    assert_eq!(world.last().await.outcome, Outcome::NotModified);
    // One is gone: half a list is none.
    world.server.serve("/a", |_| status(404));
    world.round().await;
    let last = world.last().await;
    assert_eq!(last.outcome, Outcome::Failed);
    assert!(last.error.unwrap().contains("/a: the server answered 404"));
    assert_eq!(world.set("list").entries.len(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn r117_a_feed_that_flaps_makes_no_versions_of_what_is_refused() {
    let mut world = World::new().await;
    world.list().await;
    world.server.text("/list", hosts(0, 2_000));
    world.run().await;
    for round in 0..10 {
        let count = if round % 2 == 0 { 10 } else { 2_000 };
        world.server.text("/list", hosts(0, count));
        world.round().await;
        assert_eq!(world.last().await.outcome.is_good(), count == 2_000);
    }
    assert_eq!(
        (world.set("list").version, world.set("list").entries.len()),
        (1, 2_000)
    );
    // Many times as much at once is as suspect.
    world.server.text("/list", hosts(0, 20_000));
    world.round().await;
    assert!(world.last().await.error.unwrap().contains("grew from 2000"));
    // A small change is a version, once.
    world.server.text("/list", hosts(1, 2_000));
    for _ in 0..3 {
        world.round().await;
    }
    assert_eq!(world.set("list").version, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn r117_ipsum_from_end_to_end() {
    let packed = match data("lists/ipsum.txt.gz") {
        Some(file) => std::fs::read(file).unwrap(),
        None => {
            let lines = hosts(0, 120_000).replace('\n', "\t3\n");
            gzip(format!("# IPsum\n# IP\tnumber of (black)lists\n{lines}").as_bytes())
        }
    };
    let world = World::new().await;
    world
        .server
        .serve("/ipsum.txt.gz", move |_| text(packed.clone()));
    let content = FeedContent {
        format: Format::Ipsum,
        at_least: 1,
        ..url([world.server.url("/ipsum.txt.gz")])
    };
    world.put("ipsum", &content).await;
    world.run().await;
    let set = world.set("ipsum");
    let error = world
        .set_status("ipsum", "ipsum")
        .await
        .last_try
        .unwrap()
        .error;
    assert!(
        set.entries.len() >= 100_000,
        "{} entries: {error:?}",
        set.entries.len()
    );

    // A rule that names it has it on each node.
    world
        .fleet
        .policy(
            "edge",
            &["{ id: bad, match: { src: '@ipsum' }, action: drop }"],
        )
        .await;
    world.fleet.group("all", "", &["edge"]).await;
    world.fleet.node("n-1", &[]).await;
    let entries = |world: &World| {
        let desired = world.fleet.core.view().desired(&name("n-1")).unwrap();
        desired.policy.sets()[&name("ipsum").to_set_name()].len()
    };
    assert_eq!(entries(&world), set.entries.len());
    // Of the hostile ones only the worst, which is far fewer: that has to be said twice.
    let worst = FeedContent {
        at_least: 4,
        ..content
    };
    world.put("ipsum", &worst).await;
    world.run().await;
    let last = world.set_status("ipsum", "ipsum").await.last_try.unwrap();
    assert_eq!(last.outcome, Outcome::Refused, "{last:?}");
    assert_eq!(entries(&world), set.entries.len());
    // The whole state is there after a restart.
    let World { fleet, feeds, .. } = world;
    drop(feeds);
    let fleet = fleet.restart().await;
    assert_eq!(fleet.core.view().sets()["ipsum"].entries, set.entries);
}

#[tokio::test(flavor = "multi_thread")]
async fn r117_entries_expire_unless_they_are_seen_again() {
    let mut world = World::new().await;
    let content = FeedContent {
        expiry: Some(20_000),
        ..url([world.server.url("/list")])
    };
    world.put("list", &content).await;
    world.server.text("/list", hosts(0, 10));
    world.run().await;
    let address = "203.0.0.1".parse().unwrap();
    let begin = world.now;
    let ends = |world: &World| {
        let times: Vec<_> = world
            .set("list")
            .entries
            .expiring()
            .map(|(_, at)| at)
            .collect();
        assert_eq!(times.len(), 10);
        times[0].as_second() - begin.as_second()
    };
    assert_eq!(ends(&world), 20_000);
    assert_eq!(
        world.set("list").default_expiry,
        Some(20_000),
        "for what is put by hand too"
    );
    world.round().await;
    assert_eq!(
        (ends(&world), world.set("list").version),
        (20_000, 1),
        "more than half is left"
    );
    world.round().await;
    assert_eq!((ends(&world), world.set("list").version), (34_400, 2));
    world.server.serve("/list", |_| status(503));
    for _ in 0..4 {
        world.round().await;
    }
    let set = world.set("list");
    assert!(
        !set.entries.contains_at(address, world.now),
        "the feed is gone, and so is what it said"
    );
    assert!(set.entries.contains_at(address, begin));
    // It comes back: judged by what it was, not by what is left of it.
    world.server.text("/list", hosts(0, 1));
    world.round().await;
    assert_eq!(world.last().await.outcome, Outcome::Refused);

    // A feed without an expiry fills a set that has one.
    let set = xdpgate_controller::core::SetContent {
        default_expiry: Some(50_000),
        ..super::fleet::content(&["192.0.2.1"])
    };
    let command = xdpgate_controller::core::Command::PutSet {
        set: name("other"),
        content: set,
    };
    world.fleet.run(command).await.unwrap();
    world.server.text("/other", hosts(0, 10));
    world.put("other", &url([world.server.url("/other")])).await;
    world.run().await;
    let set = world.set("other");
    assert_eq!(
        (set.entries.expiring().count(), set.default_expiry),
        (10, Some(50_000))
    );
    let before = set.version;
    world.round().await;
    assert_eq!(world.set("other").version, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn r117_addresses_that_are_not_on_the_internet_are_refused() {
    let world = World::with(Settings {
        allow_private: Vec::new(),
        ..settings()
    })
    .await;
    world.server.text("/list", hosts(0, 10));
    let literal = url([world.server.url("/list")]);
    let refused = world
        .feeds
        .create(&admin(), &name("list"), &literal, &Default::default())
        .await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("source.urls[0]: 127.0.0.1 is not an address on the internet"),
        "{refused}"
    );
    // A name tells only when it is resolved.
    let named = world.server.url("/list").replace("127.0.0.1", "localhost");
    world.put("list", &url([named])).await;
    world.run().await;
    let last = world.last().await;
    assert_eq!(last.outcome, Outcome::Refused);
    let error = last.error.unwrap();
    assert!(
        error.contains("localhost (") && error.contains("feeds.allow_private"),
        "{error}"
    );
    assert!(world.server.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn r117_of_several_controllers_one_has_the_run() {
    let mut world = World::new().await;
    world.list().await;
    let core = &world.fleet.core;
    let mut controllers = vec![world.feeds.clone()];
    for me in ["two", "three"] {
        let store = Arc::clone(core.store());
        let core = xdpgate_controller::core::Core::open(store).await.unwrap();
        controllers.push(Feeds::new(core, settings(), me).unwrap());
    }
    for round in 1..=10 {
        world.server.text("/list", hosts(0, 2_000 + round));
        let runs = controllers.iter().map(|feeds| feeds.run_due(world.now));
        let ran = futures_util::future::join_all(runs).await;
        let ran: Vec<_> = ran.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!(ran.len(), 1, "round {round}");
        assert_eq!(world.server.asked().len(), round as usize);
        world.pass(7200);
    }
    // One of them has just run it; the view of each comes to the same.
    for feeds in &controllers {
        assert_eq!(
            feeds.get(&name("list")).await.unwrap().unwrap().1.failures,
            0
        );
    }

    // A controller dies in the middle of a run: another one begins anew, but not before that is sure.
    world
        .server
        .serve_late("/list", Duration::from_secs(1), |_| text(hosts(0, 2_020)));
    let (feeds, now) = (controllers[1].clone(), world.now);
    let dying = tokio::spawn(async move { feeds.run_due(now).await });
    while world.server.asked().len() == 10 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    dying.abort();
    assert!(dying.await.unwrap_err().is_cancelled());
    assert_eq!(world.status("list").await.claim.unwrap().by, "two");
    world.pass(599);
    assert!(world.run().await.is_empty());
    world.pass(1);
    world.server.text("/list", hosts(0, 2_030));
    assert_eq!(world.run().await, ["list"]);
    assert_eq!(world.set("list").entries.len(), 2_030);
    assert_eq!(world.status("list").await.claim, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn r117_a_change_by_hand_in_the_middle_of_a_run_is_not_overwritten() {
    let mut world = World::new().await;
    world.list().await;
    world.server.text("/list", hosts(0, 10));
    world.run().await;
    world.pass(7200);
    world
        .server
        .serve_late("/list", Duration::from_millis(500), |_| text(hosts(0, 11)));
    let (feeds, now) = (world.feeds.clone(), world.now);
    let run = tokio::spawn(async move { feeds.run_due(now).await });
    while world.server.asked().len() == 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world
        .fleet
        .set("list", &["192.0.2.1", "192.0.2.2", "192.0.2.3"])
        .await;
    assert_eq!(run.await.unwrap().unwrap().len(), 1);
    assert_eq!(world.set("list").entries.len(), 3);
    let last = world.last().await;
    assert_eq!(last.outcome, Outcome::Failed, "{last:?}");
    // The next run sees it.
    world.round().await;
    assert_eq!(world.set("list").entries.len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn r117_a_feed_that_is_deleted_in_the_middle_of_a_run_writes_nothing() {
    let mut world = World::new().await;
    world.list().await;
    world.server.text("/list", hosts(0, 10));
    world.run().await;
    world.pass(7200);
    world
        .server
        .serve_late("/list", Duration::from_millis(500), |_| text(hosts(0, 11)));
    let (feeds, now) = (world.feeds.clone(), world.now);
    let run = tokio::spawn(async move { feeds.run_due(now).await });
    while world.server.asked().len() == 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let gone = world
        .feeds
        .delete(&admin(), &name("list"), &Default::default())
        .await;
    gone.expect("it is deleted");
    run.await.unwrap().expect("the store");
    assert_eq!(world.set("list").entries.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn r117_failures_are_tried_again_soon_and_then_less_often() {
    let mut world = World::new().await;
    world.list().await;
    world.server.serve("/list", |_| status(503));
    for (round, most) in [30, 60, 120, 240].into_iter().enumerate() {
        assert_eq!(world.run().await, ["list"]);
        let status = world.status("list").await;
        assert_eq!(status.failures as usize, round + 1);
        let pause = status.next.as_second() - world.now.as_second();
        assert!(
            (most / 2..=most + 2).contains(&pause),
            "round {round}: {pause} s"
        );
        assert!(world.run().await.is_empty(), "not yet");
        world.pass(pause + 1);
    }
    world
        .server
        .serve("/list", |_| with(status(429), "retry-after", "5000"));
    world.run().await;
    let pause = world.status("list").await.next.as_second() - world.now.as_second();
    assert!((5000..5003).contains(&pause), "{pause}");
    // Who does not want to wait says so.
    world.server.text("/list", hosts(0, 10));
    assert!(world.run().await.is_empty());
    world
        .feeds
        .run_now(&admin(), &name("list"), world.now)
        .await
        .unwrap();
    assert_eq!(world.run().await, ["list"]);
    assert_eq!(world.set("list").entries.len(), 10);
}
