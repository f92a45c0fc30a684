//! Work on several CPUs at once.

use std::sync::Barrier;
use std::thread;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// How many CPUs there are for this process.
pub fn cpus() -> usize {
    let set = nix::sched::sched_getaffinity(Pid::from_raw(0)).expect("sched_getaffinity");
    (0..CpuSet::count())
        .filter(|c| set.is_set(*c) == Ok(true))
        .count()
}

/// Runs the function on threads that are pinned to this many CPUs, all from the same moment on.
pub fn on_cpus(count: usize, work: impl Fn(usize) + Sync) {
    let allowed = nix::sched::sched_getaffinity(Pid::from_raw(0)).expect("sched_getaffinity");
    let mut cpus = (0..CpuSet::count()).filter(|c| allowed.is_set(*c) == Ok(true));
    let barrier = Barrier::new(count);
    thread::scope(|scope| {
        for number in 0..count {
            let cpu = cpus.next().expect("as many CPUs");
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                let mut set = CpuSet::new();
                set.set(cpu).unwrap();
                sched_setaffinity(Pid::from_raw(0), &set).expect("sched_setaffinity");
                barrier.wait();
                work(number);
            });
        }
    });
}
