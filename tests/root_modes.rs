//! What was asked, what came of it and why; and programs of other owners, which stay.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod foreign;
    pub mod netns;
    pub mod tools;
}

use std::path::Path;
use std::process;

use common::foreign::{Foreign, program_on};
use common::netns::{self, index, mount_bpffs, sh, veth};
use common::tools::has_tool;
use xdpgate::{
    AttachError, AttachMode, AttachedBy, Firewall, ForeignProgram, Frags, ModePreference,
};

const BEST: ModePreference = ModePreference::BestAvailable;

fn loaded() -> Firewall {
    Firewall::loader().load().unwrap()
}

/// The foreign program that an attachment was refused for, and the text of the error.
fn refused(firewall: &Firewall, interface: &str, mode: ModePreference) -> (ForeignProgram, String) {
    let error = firewall.attach(index(interface), mode).unwrap_err();
    let text = error.to_string();
    match error {
        AttachError::Foreign { program, .. } => (*program, text),
        error => panic!("{error:?}"),
    }
}

/// Besides this process, one that another test is starting has its descriptors for a moment.
fn is_held_here(program: &ForeignProgram) -> bool {
    let mut holders = program.holders.iter();
    holders.any(|holder| holder.pid == process::id())
}

#[test]
fn r50_what_was_asked_and_what_came_of_it() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let firewall = loaded();
        for mode in [AttachMode::Native, AttachMode::Generic] {
            let exactly = ModePreference::Exactly(mode);
            let attachment = firewall.attach(index("a0"), exactly).unwrap();
            assert_eq!((attachment.requested, attachment.mode), (exactly, mode));
            assert_eq!(attachment.fallbacks, []);
            assert_eq!(attachment.ifindex, index("a0"));
            assert_eq!(attachment.program_id, program_on("a0"));
            firewall.detach(index("a0")).unwrap();
        }
        let attachment = firewall.attach(index("lo"), BEST).unwrap();
        assert_eq!(attachment.requested, BEST);
        assert_eq!(attachment.mode, AttachMode::Generic);
        assert_eq!(attachment.fallbacks[0].from, AttachMode::Native);
        assert_eq!(firewall.attachments(), [attachment]);
    });
}

#[test]
fn r50_an_ambiguous_error_is_explained_by_the_device() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let firewall = Firewall::loader().frags(Frags::Off).load().unwrap();
        sh("ip link set dev b0 mtu 9000");
        let attachment = firewall.attach(index("a0"), BEST).unwrap();
        assert_eq!(attachment.mode, AttachMode::Generic);
        let why = attachment.why().unwrap();
        assert!(
            why.contains("b0, the other end of a0, has an MTU of 9000"),
            "{why}"
        );
        assert!(why.contains("`ip link set dev b0 mtu 3506`"), "{why}");
        firewall.detach(index("a0")).unwrap();

        let native = ModePreference::Exactly(AttachMode::Native);
        let error = firewall.attach(index("a0"), native).unwrap_err();
        assert!(
            matches!(error, AttachError::ModeUnsupported { .. }),
            "{error:?}"
        );
        let text = error.to_string();
        assert!(text.contains("`ip link set dev b0 mtu 3506`"), "{text}");
    });
}

/// ENOSPC was once taken for an error that has nothing to do with the mode.
#[test]
fn r50_too_few_queues_lead_to_generic_mode() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        sh("ip link add a0 numrxqueues 1 type veth peer name b0 numtxqueues 2");
        // Before 5.15 those are in use that it was made with.
        let _ = process::Command::new("ethtool")
            .args(["-L", "b0", "tx", "2"])
            .status();
        let attachment = loaded().attach(index("a0"), BEST).unwrap();
        assert_eq!(attachment.mode, AttachMode::Generic);
        assert_eq!(attachment.fallbacks[0].errno, nix::libc::ENOSPC);
        let why = attachment.why().unwrap();
        assert!(why.contains("has not enough queues"), "{why}");
        // What the kernel does not tell is not said.
        let is_told = process::Command::new("ethtool")
            .args(["-l", "b0"])
            .output()
            .is_ok_and(|output| output.status.success());
        let says = why.contains("sends by 2 queues, more than the 1");
        assert_eq!(says, is_told, "{why}");
    });
}

#[test]
fn r50_offload_is_refused_by_the_kernel_itself() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let offload = ModePreference::Exactly(AttachMode::Offload);
        let error = loaded().attach(index("a0"), offload).unwrap_err();
        let AttachError::ModeUnsupported { mode, source, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(*mode, AttachMode::Offload);
        let errno = source.raw_os_error();
        assert!(
            [nix::libc::EINVAL, nix::libc::EOPNOTSUPP]
                .map(Some)
                .contains(&errno),
            "{errno:?}"
        );
        assert_eq!(program_on("a0"), 0);
    });
}

#[test]
fn r57_r114_a_program_attached_by_netlink_stays_and_is_named() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        let mine = loaded();
        let theirs = Foreign::load("theirs");
        for (mode, keyword) in [
            (AttachMode::Native, "xdpdrv"),
            (AttachMode::Generic, "xdpgeneric"),
        ] {
            theirs.attach("a0", mode);
            for preference in [
                BEST,
                ModePreference::Exactly(AttachMode::Native),
                ModePreference::Exactly(AttachMode::Generic),
            ] {
                let (program, text) = refused(&mine, "a0", preference);
                assert_eq!(program.id, theirs.id());
                assert_eq!(program.name, "theirs");
                assert_eq!(program.mode, Some(mode));
                assert_eq!(program.attached_by, AttachedBy::Netlink);
                // This process loaded it.
                assert!(is_held_here(&program), "{program:?}");
                let command = format!("ip link set dev a0 {keyword} off");
                assert_eq!(program.removal.as_deref(), Some(command.as_str()));
                assert!(text.contains(&format!("`{command}`")), "{text}");
                assert!(text.contains("attached by netlink"), "{text}");
            }
            assert_eq!(program_on("a0"), theirs.id());
            assert_eq!(mine.attachments(), []);

            // The command does what is said of it.
            let (program, _) = refused(&mine, "a0", BEST);
            sh(&program.removal.unwrap());
            assert_eq!(program_on("a0"), 0);
            mine.attach(index("a0"), BEST).unwrap();
            mine.detach(index("a0")).unwrap();
        }
    });
}

#[test]
fn r57_r114_a_link_of_a_process_is_named() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        veth("a0", "b0");
        // As another daemon would do it.
        let other = loaded();
        let theirs = other.attach(index("a0"), BEST).unwrap();
        let mine = loaded();
        let (program, text) = refused(&mine, "a0", BEST);
        assert_eq!(program.id, theirs.program_id);
        assert_eq!(program.name, "xdpgate");
        assert_eq!(program.mode, Some(AttachMode::Native));
        assert_eq!(program.attached_by, AttachedBy::Link(theirs.link_id));
        assert_eq!(program.pins, [] as [&Path; 0]);
        assert!(is_held_here(&program), "{program:?}");
        let command = program.removal.unwrap();
        assert!(command.starts_with("kill "), "{command}");
        assert!(command.contains(&process::id().to_string()), "{command}");
        assert!(text.contains(&command), "{text}");
        drop(mine);
        assert_eq!(program_on("a0"), theirs.program_id);
        drop(other);
        assert_eq!(program_on("a0"), 0);
    });
}

#[test]
fn r57_r114_a_pinned_link_is_found_and_the_command_removes_it() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let dir = std::env::temp_dir().join(format!("xdpgate modes {}", process::id()));
        mount_bpffs(&dir);
        veth("a0", "b0");
        let theirs = Foreign::load("theirs");
        let pin = dir.join("sub").join("their link");
        std::fs::create_dir(dir.join("sub")).unwrap();
        let link = theirs.link_and_pin("a0", &pin);
        let mine = loaded();
        let (program, text) = refused(&mine, "a0", BEST);
        assert_eq!(program.attached_by, AttachedBy::Link(link));
        assert_eq!(program.pins, [pin.as_path()]);
        assert_eq!(program.holders, [], "nobody holds it but the pin");
        let command = format!("rm '{}'", pin.display());
        assert_eq!(program.removal.as_deref(), Some(command.as_str()));
        assert!(text.contains(&pin.display().to_string()), "{text}");
        assert_eq!(program_on("a0"), theirs.id());

        shell(&command);
        netns::wait_until("the end of the link", || program_on("a0") == 0);
        mine.attach(index("a0"), BEST).unwrap();
        nix::mount::umount(&dir).unwrap();
        std::fs::remove_dir(&dir).unwrap();
    });
}

/// Runs a command line as a person would: the quotes are for the shell.
fn shell(command: &str) {
    let status = process::Command::new("sh")
        .args(["-c", command])
        .status()
        .unwrap();
    assert!(status.success(), "{command}");
}

#[test]
fn r114_the_dispatcher_of_libxdp_stays_and_is_recognised() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let dir = std::env::temp_dir().join(format!("xdpgate-dispatcher-{}", process::id()));
        mount_bpffs(&dir);
        veth("a0", "b0");
        let mine = loaded();
        let dispatcher = Foreign::load("xdp_dispatcher");

        dispatcher.attach("a0", AttachMode::Native);
        let (program, text) = refused(&mine, "a0", BEST);
        assert!(program.is_dispatcher());
        assert!(text.contains("the dispatcher of libxdp"), "{text}");
        assert_eq!(program_on("a0"), dispatcher.id());
        sh(&program.removal.unwrap());

        dispatcher.link_and_pin("a0", &dir.join("link"));
        let (program, text) = refused(&mine, "a0", BEST);
        assert!(program.is_dispatcher());
        assert!(text.contains("the dispatcher of libxdp"), "{text}");
        assert_eq!(program_on("a0"), dispatcher.id());
        assert_eq!(mine.attachments(), []);
        shell(&program.removal.unwrap());
        netns::wait_until("the end of the link", || program_on("a0") == 0);

        // The other way round: what libxdp does by netlink is refused where our link is.
        mine.attach(index("a0"), BEST).unwrap();
        let ours = program_on("a0");
        let error = dispatcher.try_attach("a0", AttachMode::Native).unwrap_err();
        assert!(error.to_string().contains("busy"), "{error}");
        assert_eq!(program_on("a0"), ours);
        nix::mount::umount(&dir).unwrap();
        std::fs::remove_dir(&dir).unwrap();
    });
}

/// xdp-filter attaches by libxdp: behind a dispatcher where the kernel lets it, else alone.
#[test]
fn r114_what_xdp_tools_attached_stays_and_can_be_removed() {
    if netns::skipped() || !has_tool("xdp-filter", "--bench") {
        return;
    }
    netns::run(|| {
        // In a mount namespace of its own, so that nothing is left at the real place.
        mount_bpffs(Path::new("/sys/fs/bpf"));
        veth("a0", "b0");
        sh("xdp-filter load a0 --mode native");
        let theirs = program_on("a0");
        let mine = loaded();
        let (program, text) = refused(&mine, "a0", BEST);
        assert_eq!((program.id, program_on("a0")), (theirs, theirs));
        assert_eq!(program.attached_by, AttachedBy::Netlink);
        assert_eq!(program.pins.len(), 1, "{program:?}");
        let pin = program.pins[0].display().to_string();
        assert!(text.contains(&pin), "{text}");
        if program.is_dispatcher() {
            println!("behind the dispatcher: {text}");
            assert!(pin.starts_with("/sys/fs/bpf/xdp/dispatch-"), "{pin}");
            assert_eq!(
                program.removal.as_deref(),
                Some("xdp-loader unload a0 --all")
            );
        } else {
            println!("alone: {text}");
            assert!(program.name.starts_with("xdpfilt_"), "{program:?}");
            assert!(pin.starts_with("/sys/fs/bpf/xdp-filter/"), "{pin}");
        }
        sh(program.removal.as_deref().unwrap());
        assert_eq!(program_on("a0"), 0);
        mine.attach(index("a0"), BEST).unwrap();

        // And the other way round: it does not displace ours.
        let ours = program_on("a0");
        let output = process::Command::new("xdp-filter")
            .args(["load", "a0", "--mode", "native"])
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert_eq!(program_on("a0"), ours);
    });
}
