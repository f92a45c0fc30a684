//! Feeds are made, changed and deleted.

use xdpgate_controller::core::{ErrorKind, Options};
use xdpgate_controller::feed::{FeedContent, Limits, Source};

use super::fleet::name;
use super::{World, admin, audited, file, hosts, url};

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_has_versions_and_an_audit_log() {
    let mut world = World::new().await;
    let content = url([world.server.url("/list")]);
    let (list, actor) = (name("list"), admin());
    let options = Options {
        why: "ticket 4711".to_owned(),
        ..Options::default()
    };
    let feed = world
        .feeds
        .create(&actor, &list, &content, &options)
        .await
        .unwrap();
    assert_eq!((feed.version, feed.created.by.as_str()), (1, "anna"));
    let again = world
        .feeds
        .create(&actor, &list, &content, &options)
        .await
        .unwrap_err();
    assert_eq!(again.kind, ErrorKind::AlreadyExists);
    let same = world
        .feeds
        .put(&actor, &list, &content, &options)
        .await
        .unwrap();
    assert_eq!(same.version, 1, "nothing changed");
    let other = FeedContent {
        enabled: false,
        ..content.clone()
    };
    let expecting = |version| Options {
        expect: Some(version),
        ..Options::default()
    };
    let conflict = world
        .feeds
        .put(&actor, &list, &other, &expecting(7))
        .await
        .unwrap_err();
    assert_eq!(
        (conflict.kind, conflict.version),
        (ErrorKind::Conflict, Some(1))
    );
    let changed = world
        .feeds
        .put(&actor, &list, &other, &expecting(1))
        .await
        .unwrap();
    assert_eq!((changed.version, changed.created), (2, feed.created));
    world.server.text("/list", hosts(0, 10));
    assert!(world.run().await.is_empty(), "it is switched off");
    assert_eq!(
        world
            .feeds
            .run_now(&actor, &list, world.now)
            .await
            .unwrap_err()
            .kind,
        ErrorKind::Invalid
    );
    world.put("list", &content).await;
    world.run().await;
    let listed = world.feeds.list().await.unwrap();
    assert_eq!((listed.len(), listed[0].0.version), (1, 3));

    assert_eq!(
        world
            .feeds
            .delete(&actor, &list, &expecting(2))
            .await
            .unwrap_err()
            .kind,
        ErrorKind::Conflict
    );
    world
        .feeds
        .delete(&actor, &list, &expecting(3))
        .await
        .unwrap();
    assert_eq!(world.feeds.get(&list).await.unwrap(), None);
    assert_eq!(world.set("list").entries.len(), 10, "what it brought stays");
    assert!(world.round().await.is_empty());
    for missing in [
        world.feeds.delete(&actor, &list, &Options::default()).await,
        world.feeds.run_now(&actor, &list, world.now).await,
        world
            .feeds
            .accept_once(&actor, &list, None, world.now)
            .await,
    ] {
        assert_eq!(missing.unwrap_err().kind, ErrorKind::NotFound);
    }
    let audited = audited(&world.fleet.core).await;
    let count = |action: &str| audited.get(action).copied().unwrap_or(0);
    assert_eq!(
        (
            count("feed.create"),
            count("feed.put"),
            count("feed.delete")
        ),
        (1, 2, 1),
        "{audited:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_fill_one_set_made_at_once_one_wins() {
    let world = World::new().await;
    for round in 0..10 {
        let set = format!("set-{round}");
        let content = FeedContent {
            set: Some(set),
            ..url([world.server.url("/list")])
        };
        let options = Options::default();
        let names = ["a", "b", "c"].map(|letter| name(&format!("{letter}{round}")));
        let actor = admin();
        let made = names
            .iter()
            .map(|name| world.feeds.create(&actor, name, &content, &options));
        let made = futures_util::future::join_all(made).await;
        let refused: Vec<_> = made.iter().filter_map(|made| made.as_ref().err()).collect();
        assert_eq!(refused.len(), 2, "{made:?}");
        assert!(
            refused.iter().all(|error| error.kind == ErrorKind::InUse),
            "{refused:?}"
        );
        // And two of one name.
        let one = name(&format!("one-{round}"));
        let content = url([world.server.url("/list")]);
        let twice = [0, 1].map(|_| world.feeds.create(&actor, &one, &content, &options));
        let twice = futures_util::future::join_all(twice).await;
        assert_eq!(
            twice.iter().filter(|made| made.is_ok()).count(),
            1,
            "{twice:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_that_is_wrong_is_named() {
    let world = World::new().await;
    let list = || url(["https://lists.example/a".to_owned()]);
    let limits = |limits: Limits| FeedContent { limits, ..list() };
    let wrong = [
        (url([]), "source.urls: 0 places"),
        (
            url(["http://lists.example/a".to_owned()]),
            "source.urls[0]: http://lists.example/a: only https",
        ),
        (
            url(["https://me:pw@lists.example/a".to_owned()]),
            "source.urls[0]: a user or password",
        ),
        (
            file(&["../a"]),
            "source.paths[0]: \"../a\" is not a path below",
        ),
        (file(&["/etc/passwd"]), "source.paths[0]"),
        (
            file(&["a-{country}", "b"]),
            "source.paths[1]: b has no {country}",
        ),
        (
            url(["https://lists.example/{country}".to_owned()]),
            "countries: none is named",
        ),
        (
            FeedContent {
                countries: vec!["de".to_owned()],
                ..list()
            },
            "countries: no place has",
        ),
        (
            FeedContent {
                countries: vec!["deu".to_owned()],
                ..file(&["{country}"])
            },
            "countries: \"deu\"",
        ),
        (
            FeedContent {
                countries: vec!["de".to_owned(), "DE".to_owned()],
                ..file(&["{country}"])
            },
            "countries: 2 countries, 1 of them distinct",
        ),
        (
            FeedContent {
                set: Some("a b".to_owned()),
                ..list()
            },
            "set: \"a b\" is not a name",
        ),
        (
            FeedContent {
                set: Some("x-{country}".to_owned()),
                ..list()
            },
            "set: x-{country}",
        ),
        (
            FeedContent {
                every: 59,
                ..list()
            },
            "every: 59 is not",
        ),
        (
            FeedContent {
                expiry: Some(7199),
                ..list()
            },
            "expiry: 7199 is less than twice every",
        ),
        (
            FeedContent {
                expiry: Some(u64::MAX),
                ..list()
            },
            "expiry: 18446744073709551615 is more than",
        ),
        (
            FeedContent {
                max_age: Some(1),
                ..list()
            },
            "max_age: less than every",
        ),
        (
            limits(Limits {
                max_bytes: u64::MAX,
                ..Limits::default()
            }),
            "limits.max_bytes",
        ),
        (
            limits(Limits {
                max_shrink_percent: 101,
                ..Limits::default()
            }),
            "limits.max_shrink_percent",
        ),
        (
            limits(Limits {
                protect: vec!["10.0.0.1/8".to_owned()],
                ..Limits::default()
            }),
            "limits.protect[0]",
        ),
    ];
    for (content, words) in wrong {
        let made = world
            .feeds
            .create(&admin(), &name("feed"), &content, &Options::default())
            .await;
        let error = made.expect_err(words).to_string();
        assert!(
            error.starts_with(&format!("feed/feed: {words}")),
            "{words}: {error}"
        );
        assert!(!error.contains('\n'));
    }
    let dry = Options {
        dry_run: true,
        ..Options::default()
    };
    world
        .feeds
        .create(&admin(), &name("feed"), &list(), &dry)
        .await
        .unwrap();
    assert_eq!(world.feeds.list().await.unwrap(), []);
    // As JSON, which is what the API takes, a word that is not known is refused.
    let text = r#"{"source": {"kind": "url", "urls": ["https://lists.example/a"]}, "evry": 60}"#;
    let error = serde_json::from_str::<FeedContent>(text)
        .unwrap_err()
        .to_string();
    assert!(error.contains("evry"), "{error}");
    let text = r#"{"source": {"kind": "kubernetes"}}"#;
    let content: FeedContent = serde_json::from_str(text).unwrap();
    assert_eq!(content, FeedContent::new(Source::Kubernetes {}));
}
