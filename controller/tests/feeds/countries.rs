//! A set for each country, from a folder or from web servers.

use xdpgate_controller::core::ErrorKind;
use xdpgate_controller::feed::{FeedContent, Outcome, Settings, lookup};

use super::fleet::name;
use super::{World, admin, data, file, settings, url};

const PATHS: [&str; 2] = ["country-{country}.ipv4.cidr", "country-{country}.ipv6.cidr"];

/// A folder with the lists of three countries, real ones where they are there.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (index, code) in ["br", "de", "nl"].into_iter().enumerate() {
        for family in ["ipv4", "ipv6"] {
            let file = format!("country-{code}.{family}.cidr");
            let text = match data(&format!("lists/{file}")) {
                Some(real) => std::fs::read_to_string(real).unwrap(),
                None if family == "ipv4" => {
                    (0..200).map(|n| format!("10.{index}.{n}.0/24\n")).collect()
                }
                None => format!("2a0{index}::/29\n"),
            };
            std::fs::write(folder.path().join(file), text).unwrap();
        }
    }
    folder
}

async fn with_folder(folder: &tempfile::TempDir) -> World {
    let directory = Some(folder.path().to_owned());
    World::with(Settings {
        directory,
        ..settings()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn r118_a_folder_of_prefix_lists_makes_a_set_for_each_country() {
    let folder = folder();
    let mut world = with_folder(&folder).await;
    world.put("countries", &file(&PATHS)).await;
    assert_eq!(world.run().await, ["countries"]);
    let view = world.fleet.core.view();
    let names: Vec<_> = view
        .sets()
        .keys()
        .map(|set| set.as_str().to_owned())
        .collect();
    assert_eq!(names, ["country-br", "country-de", "country-nl"]);
    let set = world.set("country-de");
    let prefixes: Vec<_> = set.entries.iter().collect();
    assert!(
        prefixes.iter().any(|p| p.addr().is_ipv4()) && prefixes.iter().any(|p| p.addr().is_ipv6())
    );

    // An address names its country, and every set that has it.
    let of_de = prefixes[0].addr();
    world
        .fleet
        .set("bad", &[&of_de.to_string(), "192.0.2.1"])
        .await;
    let view = world.fleet.core.view();
    let found = lookup(&view, of_de, world.now);
    assert_eq!(found.countries, ["de"]);
    assert_eq!(found.sets, ["bad", "country-de"]);
    let other = lookup(&view, "192.0.2.1".parse().unwrap(), world.now);
    assert_eq!((other.countries.len(), other.sets.len()), (0, 1));
    assert_eq!(
        lookup(&view, "192.0.2.2".parse().unwrap(), world.now),
        Default::default()
    );

    // One country loses most of its prefixes: that one stays as it was, and the others go on.
    std::fs::write(folder.path().join("country-de.ipv4.cidr"), "192.0.2.0/24\n").unwrap();
    std::fs::write(folder.path().join("country-de.ipv6.cidr"), "2a02::/32\n").unwrap();
    let nl = folder.path().join("country-nl.ipv4.cidr");
    let more = std::fs::read_to_string(&nl).unwrap() + "198.51.100.0/24\n";
    std::fs::write(&nl, more).unwrap();
    // And a new one comes.
    std::fs::write(
        folder.path().join("country-fr.ipv4.cidr"),
        "203.0.113.0/24\n",
    )
    .unwrap();
    world.round().await;
    assert_eq!(world.set("country-de").entries, set.entries);
    assert_eq!(world.set("country-nl").version, 2);
    assert_eq!(world.set("country-br").version, 1);
    assert_eq!(world.set("country-fr").entries.len(), 1);
    let status = world.status("countries").await;
    let outcome = |set: &str| status.sets[set].last_try.as_ref().unwrap().outcome;
    assert_eq!(outcome("country-de"), Outcome::Refused);
    assert_eq!(outcome("country-br"), Outcome::Unchanged);
    assert_eq!(outcome("country-nl"), Outcome::Replaced);
    assert_eq!(status.failures, 1);
    // It is accepted for that country alone.
    let set = name("country-de");
    world
        .feeds
        .accept_once(&admin(), &name("countries"), Some(&set), world.now)
        .await
        .unwrap();
    world.run().await;
    assert_eq!(world.set("country-de").entries.len(), 2);

    // Rules name it as any set.
    world
        .fleet
        .policy(
            "geo",
            &["{ id: not-nl, match: { src: '@country-nl' }, action: drop }"],
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r118_web_servers_have_a_list_for_each_country() {
    let mut world = World::new().await;
    let content = FeedContent {
        countries: vec!["de".to_owned(), "NL".to_owned()],
        set: Some("geo.{country}".to_owned()),
        ..url(["/v4/{country}.zone", "/v6/{COUNTRY}.zone"].map(|path| world.server.url(path)))
    };
    world.put("geo", &content).await;
    for (path, text) in [
        ("/v4/de.zone", "203.0.113.0/25\n"),
        ("/v6/DE.zone", "2a01::/29\n"),
        ("/v4/nl.zone", "203.0.113.128/25\n"),
    ] {
        world.server.text(path, text);
    }
    world.run().await;
    assert_eq!(world.set("geo.de").entries.len(), 2);
    assert!(
        !world.fleet.core.view().sets().contains_key("geo.nl"),
        "half a country is none"
    );
    let last = world.set_status("geo", "geo.nl").await.last_try.unwrap();
    assert!(
        last.error
            .unwrap()
            .contains("/v6/NL.zone: the server answered 404")
    );
    world.server.text("/v6/NL.zone", "2a02::/29\n");
    world.round().await;
    assert_eq!(world.set("geo.nl").entries.len(), 2);

    // Nobody else fills one of these sets.
    for (set, paths) in [
        (Some("geo.de"), &["/a"][..]),
        (Some("geo.{country}"), &["/{country}"]),
    ] {
        let other = FeedContent {
            set: set.map(str::to_owned),
            countries: paths[0]
                .contains('{')
                .then(|| "de".to_owned())
                .into_iter()
                .collect(),
            ..url(paths.iter().map(|path| world.server.url(path)))
        };
        let refused = world
            .feeds
            .create(&admin(), &name("other"), &other, &Default::default())
            .await;
        assert_eq!(refused.unwrap_err().kind, ErrorKind::InUse, "{set:?}");
    }
    let fr = FeedContent {
        set: Some("geo.{country}".to_owned()),
        countries: vec!["fr".to_owned()],
        ..url([world.server.url("/{country}")])
    };
    world.put("fr", &fr).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r118_without_a_folder_there_are_no_files() {
    let world = World::new().await;
    world.put("list", &file(&["list"])).await;
    world.put("countries", &file(&PATHS)).await;
    world.run().await;
    assert!(
        world
            .last()
            .await
            .error
            .unwrap()
            .contains("feeds.directory")
    );
    assert!(
        world
            .status("countries")
            .await
            .error
            .unwrap()
            .contains("feeds.directory")
    );
    // An empty one has no country.
    let folder = tempfile::tempdir().unwrap();
    let mut world = with_folder(&folder).await;
    world.put("countries", &file(&PATHS)).await;
    world.round().await;
    assert!(
        world
            .status("countries")
            .await
            .error
            .unwrap()
            .contains("no file of any country")
    );
    assert_eq!(world.status("countries").await.failures, 1);
}
