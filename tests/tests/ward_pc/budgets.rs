//! Counts that `tests/budgets.toml` limits.

use tests::budgets::Budgets;
use tests::measure;
use tests::peers::{BZIMAGE, ELF, Vmm};
use tests::ward_test;
use tests::{Guest, Outcome, ensure};

use tests::ward::Ward;

#[ward_test(shows = ["C-13"])]
fn a_boot_takes_no_more_exits_than_budgeted(_: &Ward) -> Outcome {
    let most = Budgets::load()?.count("boot", "exits_until_init")?;
    // A PC that stands still at the second kernel costs the count of that one alone.
    let mut counted = Vec::new();
    measure::on_an_instruction_counted_pc(|pc| {
        for kernel in [BZIMAGE, ELF] {
            if counted.contains(&kernel) {
                continue;
            }
            let exits = measure::exits_until_init(pc, Vmm::Bulkhead, kernel)?;
            let total: u64 = exits.values().sum();
            pc.progress(&format!("{kernel}: {total} exits until init: {exits:?}"));
            ensure!(
                total <= most,
                "{kernel}: {total} exits until init, {most} budgeted: {exits:?}"
            );
            counted.push(kernel);
        }
        Ok(())
    })
}

#[ward_test(shows = ["C-13", "K-5.2.3"])]
fn the_vmm_takes_no_more_memory_and_threads_than_budgeted(ward: &Ward) -> Outcome {
    let budgets = Budgets::load()?;
    measure::prepare(&ward.pc)?;
    ward.pc.sh("truncate -s 64M /tmp/measured.img")?;
    let guest = Guest::start_vmm(&ward.pc, "measured", Vmm::Bulkhead, "/tmp/measured.img")?;
    let memory = measure::memory(&ward.pc, guest.pid)?;
    guest.power_off()?;
    ward.pc.progress(&format!("{memory:?}"));
    let most = budgets.count("vmm", "memory_beyond_guest_kib")?;
    if tests::runner::is_fast_build() {
        ward.pc.progress("the memory budget is the delivered build's; the fast one takes more");
    } else {
        ensure!(memory.beyond_guest_kib <= most, "{most} KiB budgeted: {memory:?}");
    }
    let most = budgets.count("vmm", "threads")?;
    ensure!(memory.threads <= most, "{most} threads budgeted: {memory:?}");
    Ok(())
}
