//! What the client says about itself: help, completions, manual pages.

mod common;

use std::process::Command;

use common::tools::has_tool;
use common::{Ended, Scratch, XDPGATE, run, text, xdpgate};

/// Every command with its subcommands, as the help lists them.
fn commands() -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut open = vec![Vec::<String>::new()];
    while let Some(path) = open.pop() {
        let help = help(&path);
        let listed = help
            .lines()
            .skip_while(|line| *line != "Commands:")
            .skip(1)
            .take_while(|line| line.starts_with("  "))
            .filter_map(|line| line.split_whitespace().next());
        for name in listed.filter(|name| *name != "help") {
            let child = [path.clone(), vec![name.to_owned()]].concat();
            all.push(child.clone());
            open.push(child);
        }
    }
    all
}

fn help(path: &[String]) -> String {
    let arguments = [path, &["--help".to_owned()]].concat();
    xdpgate(arguments).ok()
}

#[test]
fn every_command_has_an_example_that_is_of_it() {
    let all = commands();
    assert!(all.len() > 35, "{all:?}");
    for path in all {
        let help = help(&path);
        let (_, examples) = help
            .split_once("Examples:\n")
            .unwrap_or_else(|| panic!("{path:?} has no example: {help}"));
        let command = ["xdpgate", &path.join(" ")].join(" ");
        assert!(
            examples.contains(command.trim_end()),
            "{path:?}: {examples}"
        );
    }
}

#[test]
fn what_asks_the_daemon_takes_json_and_server() {
    let local = ["load", "unload", "completions", "man"];
    for path in commands() {
        let is_group = help(&path).contains("\nCommands:\n");
        let name = path.join(" ");
        let without =
            local.contains(&name.as_str()) || name == "policy check" || name == "policy convert";
        if is_group || without {
            continue;
        }
        let help = help(&path);
        assert!(
            help.contains("--server") && help.contains("--json"),
            "{name}: {help}"
        );
    }
}

fn complete(words: &[&str]) -> String {
    let script = xdpgate(["completions", "bash"]).ok();
    // What bash does on TAB: the function is called with these variables and fills COMPREPLY.
    let asked = format!(
        "{script}\nCOMP_WORDS=({}); COMP_CWORD={}; _xdpgate xdpgate '{}' ''\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        words.len() - 1,
        words.last().expect("a word"),
    );
    // The script is longer than an argument may be.
    let scratch = Scratch::new();
    run("bash", [scratch.file("asked", asked)]).ok()
}

#[test]
fn bash_completes_commands_and_options() {
    assert_eq!(complete(&["xdpgate", "panic"]), "panic-off\n");
    assert_eq!(
        complete(&["xdpgate", "policy", "con"]),
        "confirm\nconvert\n"
    );
    assert!(complete(&["xdpgate", "ban", "--sc"]).contains("--scope"));
}

#[test]
fn completions_of_both_programs_are_scripts() {
    let scratch = Scratch::new();
    for program in ["xdpgate", "xdpgated"] {
        let script = xdpgate(["completions", "bash", "--of", program]).ok();
        let file = scratch.file(program, script);
        run("bash", ["-n", &file]).ok();
        for shell in ["zsh", "fish"] {
            let script = xdpgate(["completions", shell, "--of", program]).ok();
            assert!(script.contains(program), "{shell}");
        }
    }
}

#[test]
fn manual_pages_render_without_warnings() {
    let scratch = Scratch::new();
    let dir = scratch.path("man");
    xdpgate(["man", &text(&dir)]).ok();
    let pages: Vec<_> = ["man1", "man8"]
        .into_iter()
        .flat_map(|section| std::fs::read_dir(dir.join(section)).expect("pages"))
        .map(|page| page.expect("a page").path())
        .collect();
    for name in [
        "man1/xdpgate.1",
        "man1/xdpgate-policy-apply.1",
        "man1/xdpgate-set-import.1",
        "man8/xdpgated.8",
        "man8/xdpgated-config-show.8",
    ] {
        assert!(pages.contains(&dir.join(name)), "no {name} in {pages:?}");
    }
    for page in &pages {
        let words = std::fs::read_to_string(page).expect("a page");
        let section = page
            .extension()
            .and_then(|e| e.to_str())
            .expect("a section");
        let name = page.file_stem().and_then(|s| s.to_str()).expect("a name");
        let title = format!("\n.TH {name} {section} ");
        assert!(words.contains(&title), "no {title:?} in {page:?}");
        // The daemon's are of section 8, all others of section 1.
        assert_eq!(section == "8", name.starts_with("xdpgated"), "{page:?}");
    }
    if !has_tool("groff", "--packaging") {
        return;
    }
    for page in pages {
        let output = Command::new("groff")
            .args(["-man", "-Tutf8", "-ww", "-P-cbou"])
            .arg(&page)
            .output()
            .expect("groff");
        let said: Ended = output.into();
        assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{page:?}");
        assert!(said.stdout.contains("NAME"), "{page:?}");
    }
}

#[test]
fn colours_only_where_they_are_wanted() {
    let scratch = Scratch::new();
    let a = scratch.file("a.yaml", "version: 1\ndefault: pass\n");
    let b = scratch.file("b.yaml", "version: 1\ndefault: drop\n");
    let diff = |more: &[&str], no_color: Option<&str>| {
        let mut command = common::command(XDPGATE);
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
        if let Some(value) = no_color {
            command.env("NO_COLOR", value);
        }
        let output = command.args(["policy", "diff", &a, &b]).args(more).output();
        let ended: Ended = output.expect("xdpgate").into();
        assert_eq!(ended.code, Some(1), "{ended}");
        ended.stdout.contains('\u{1b}')
    };
    assert!(!diff(&[], None), "stdout is a pipe");
    assert!(diff(&["--color", "always"], None));
    assert!(!diff(&["--color", "never"], None));

    // On a terminal, which `script` makes.
    if !has_tool("script", "") {
        return;
    }
    let on_terminal = |before: &str, after: &str| {
        let line = format!("{before} {XDPGATE} policy diff {a} {b} {after}");
        let mut command = common::command("script");
        command.env_remove("NO_COLOR").env("TERM", "xterm-256color");
        let output = command.args(["-qec", &line, "/dev/null"]).output();
        let ended: Ended = output.expect("script").into();
        assert!(ended.stdout.contains("default: drop"), "{ended}");
        ended.stdout.contains('\u{1b}')
    };
    assert!(on_terminal("", ""));
    assert!(!on_terminal("NO_COLOR=1", ""));
    assert!(!on_terminal("", "--color never"));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let scratch = Scratch::new();
    let list: String = (0..200_000u32)
        .map(|n| format!("{}\n", std::net::Ipv4Addr::from(0x0b00_0000 + n)))
        .collect();
    let list = scratch.file("list.txt", list);
    let line = format!("set -o pipefail; {XDPGATE} policy convert --from list {list} | head -1");
    let ended = run("bash", ["-c", &line]);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(0), ""),
        "{ended}"
    );
    assert_eq!(ended.stdout, "version: 1\n");
}
