//! What of the kernel's memory for transfers the devices of each domain have.

use super::*;

/// Opens a broker of so many domains that get devices and one that gets none; how many sockets each of the former has, and the budget of each.
fn opened(domains: usize) -> Vec<(usize, u32)> {
    let dir = tempfile::tempdir().unwrap();
    let sockets = || {
        (1..=4).map(|number| SocketEndpoint::Connect(PathBuf::from(format!("/{number}")))).collect()
    };
    let mut all: Vec<Domain> =
        (0..domains).map(|number| domain(&format!("domain-{number}"), sockets())).collect();
    all.push(Domain { workers: Err("no number"), ..domain("beyond", sockets()) });
    let setup = Setup { domains: all, ..setup(dir.path(), Vec::new()) };
    let bench = Bench::over(setup, dir);
    let (_, beyond) = bench.broker.domains.last().unwrap();
    assert_eq!(beyond[0].has_no_workers(), Some("no number"));
    let served = bench.broker.domains.iter().take(domains);
    served
        .map(|(_, sockets)| {
            let budget = sockets[0].budget;
            assert!(sockets.iter().all(|socket| socket.budget == budget));
            (sockets.len(), budget)
        })
        .collect()
}

// Shows: C-10.
#[test]
fn each_domains_devices_have_the_same_part_of_the_kernels_memory_whatever_others_have_plugged_in() {
    for (domains, expected) in
        [(1, (4, 1 << 20)), (2, (4, 1 << 20)), (4, (4, 768 << 10)), (63, (1, 192 << 10))]
    {
        let opened = opened(domains);
        assert_eq!(opened.len(), domains);
        assert!(opened.iter().all(|one| *one == expected), "{domains}: {opened:?}");
    }
}
