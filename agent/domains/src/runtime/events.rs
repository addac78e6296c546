//! What a domain's VMM writes, answers and does, and what comes of that.

use std::time::Duration;

use logging::LIMITED_BY_CALLER;
use vmm_control::{Command, HungThread};

use handover::PciAddress;

use super::super::SupervisorContext;
use super::super::adoption::by_last_words;
use super::super::capture::{Capture, Output};
use super::super::desired_state::DesiredState;
use super::super::interrupts;
use super::super::lifecycle::{Event, Exit, State};
use super::super::pressure::Resource;
use super::super::record::VmmRecord;
use super::super::vmm_control_client::VmmControlClient;
use super::{DomainRuntime, SILENT_AFTER};

/// How often a VMM that has not answered yet is asked.
const ASK_EARLY: Duration = Duration::from_millis(100);
/// How often one that has answered is asked.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Unanswered questions after which a VMM counts as hung: two minutes or more, which is what a disk of the host's takes to recover from which a
/// kernel is being loaded. Counted rather than timed, as a PC that slept asked nothing meanwhile.
const HUNG_AFTER: u32 = 24;
/// Why a VMM is killed that writes to its log without end.
const HOLDS_ITS_LOG: &str = "its VMM writes to its log without end, so that the log cannot be started over: it may have been taken over by its guest";

impl DomainRuntime {
    /// Processes what the VMM wrote, answered and did, and what is due.
    pub(in super::super) fn process_events(&mut self, shared: &mut SupervisorContext) {
        self.log_output(shared);
        self.end_if_it_holds_its_log(shared);
        self.reap(shared);
        self.poll_control_socket(shared);
        self.connect_seat(shared);
        self.look_at_health(shared);
        if let Some(why) = self.must_end.take() {
            self.feed(shared, Event::Hangs(why));
        }
        self.feed_tick(shared);
    }

    fn feed_tick(&mut self, shared: &mut SupervisorContext) {
        if self.lifecycle.deadline().is_some_and(|deadline| shared.now() >= deadline) {
            self.feed(shared, Event::Tick);
        }
    }

    /// Logs what the VMM writes to its standard error.
    fn log_output(&mut self, shared: &SupervisorContext) {
        let Some(capture) = &mut self.capture else { return };
        let output = capture.poll(shared.now());
        self.log_lines(output);
    }

    fn log_lines(&self, output: Output) {
        let domain = self.policy.name.as_str();
        if output.skipped > 0 {
            tracing::warn!(target: LIMITED_BY_CALLER, domain, "vmm: {} bytes passed over", output.skipped);
        }
        if output.dropped > 0 {
            tracing::warn!(target: LIMITED_BY_CALLER, domain, "vmm: {} lines left out", output.dropped);
        }
        for line in output.lines {
            tracing::info!(target: LIMITED_BY_CALLER, domain, "vmm: {line}");
        }
    }

    /// Ends a VMM that keeps its log from being started over: it would fill the file system that the log is on.
    fn end_if_it_holds_its_log(&mut self, shared: &mut SupervisorContext) {
        if !self.capture.as_mut().is_some_and(Capture::is_newly_held_up) {
            return;
        }
        if matches!(self.lifecycle.state(), State::Running { .. }) {
            return self.feed(shared, Event::Hangs(HOLDS_ITS_LOG.to_owned()));
        }
        // It is to end anyway, and is not given the time that its guest has for that.
        tracing::error!(domain = self.policy.name, "{HOLDS_ITS_LOG}");
        if let Some(vmm) = &self.vmm {
            vmm.kill();
        }
    }

    fn reap(&mut self, shared: &mut SupervisorContext) {
        if self.is_log_starting_over() {
            // How the VMM ended may be in what is being taken out of its log.
            return;
        }
        let Some(vmm) = &mut self.vmm else { return };
        let last = || self.capture.as_ref().and_then(Capture::last_words);
        let Some(exit) = vmm.ended(|| by_last_words(last().as_deref())) else { return };
        let reason = || self.capture.as_ref().and_then(Capture::reason);
        let exit = match (exit, reason().filter(|_| !vmm.is_adopted())) {
            (Exit::Failed(how), Some(line)) => Exit::Failed(format!("{how}: {line}")),
            (exit, _) => exit,
        };
        // What it said last may have come since it was last read.
        if let Some(rest) = self.capture.as_mut().map(|capture| capture.poll_rest(shared.now())) {
            self.log_lines(rest);
        }
        (self.vmm, self.capture, self.seat_next) = (None, None, None);
        (self.record, self.outdated, self.waits) = (None, None, None);
        if let Some(seat) = &shared.parts.seat
            && let Some(index) = seat.index(&self.policy.name)
        {
            seat.send(seat::Command::Detach(index));
        }
        self.control = VmmControlClient::new(&shared.parts.layout.vmm_socket(&self.policy.name));
        let ended = self.pressure.end(shared.now());
        self.pressure_changes.extend(ended);
        if let Some(group) = self.group.take() {
            // What the VMM may have started goes with it.
            group.kill();
            group.remove();
        }
        if exit == Exit::PoweredOff {
            // It was switched off, or stopped: that says nothing of its image.
            self.health = None;
        }
        if exit == Exit::PoweredOff && matches!(self.lifecycle.state(), State::Running { .. }) {
            // Without its record the next agent would start a guest that switched itself off.
            self.write_wanted(shared, DesiredState::Off);
        }
        self.forget(shared);
        self.feed(shared, Event::Exited(exit));
    }

    /// Removes the record of the VMM, by which the next agent would find it.
    pub(super) fn forget(&self, shared: &SupervisorContext) {
        if let Err(error) = VmmRecord::remove(&shared.parts.layout, &self.policy.name) {
            tracing::warn!(domain = self.policy.name, "cannot write down the VMM's end: {error}");
        }
    }

    /// Handles the VMM's answers on its control socket, and asks for its status.
    fn poll_control_socket(&mut self, shared: &mut SupervisorContext) {
        let now = shared.now();
        for (request, result) in self.control.poll(now) {
            match (request, result) {
                (Command::Status, Ok(status)) => {
                    self.unanswered = 0;
                    self.ask_next = now + ASK_AGAIN;
                    self.complete_record(shared);
                    self.feed(shared, Event::Answered);
                    self.take_hung(shared, status.and_then(|status| status.hung));
                }
                (Command::Status, Err(problem)) => {
                    // Until it has answered once the time since its start counts.
                    if matches!(self.lifecycle.state(), State::Running { answered: true, .. }) {
                        self.count_unanswered(shared, &problem);
                    }
                }
                (Command::PowerButton, Err(problem)) => {
                    tracing::warn!(
                        domain = self.policy.name,
                        "power button: {problem}; pressing it by signal"
                    );
                    if let Some(vmm) = &mut self.vmm {
                        vmm.press_power_button();
                    }
                }
                (Command::Stop, Err(_)) => {
                    if let Some(vmm) = &self.vmm {
                        vmm.end();
                    }
                }
                (Command::Reset, Err(problem)) => {
                    tracing::warn!(domain = self.policy.name, "reset: {problem}");
                }
                // The agent never pauses a guest.
                (Command::Pause | Command::Resume, Err(_)) | (_, Ok(_)) => {}
            }
        }
        let State::Running { answered, .. } = self.lifecycle.state() else { return };
        if now >= self.ask_next && !self.control.is_busy() {
            self.ask_next = now + if answered { ASK_AGAIN } else { ASK_EARLY };
            if let Err(problem) = self.control.send(now, Command::Status)
                && answered
            {
                self.count_unanswered(shared, &problem.to_string());
            }
        }
    }

    /// Handles what the VMM says of a thread of its own that hangs.
    fn take_hung(&mut self, shared: &mut SupervisorContext, hung: Option<HungThread>) {
        let (waits, hangs): (Option<_>, Option<_>) = match hung {
            Some(hung) if hung.waits_for_host => (Some(hung), None),
            hung => (None, hung),
        };
        let is_new = self.waits().is_none();
        self.waits = waits;
        if let Some(words) = self.waits().filter(|_| is_new) {
            tracing::error!(domain = self.policy.name, "{words}");
        }
        if let Some(HungThread { thread, seconds, .. }) = hangs {
            let how = format!("its VMM's thread {thread} has not come round for {seconds} s");
            self.feed(shared, Event::Hangs(how));
        }
    }

    /// Connects the seat to the VMM as soon as that listens for it.
    fn connect_seat(&mut self, shared: &SupervisorContext) {
        let now = shared.now();
        let Some(parts) =
            self.seat_next.filter(|next| now >= *next).and(shared.parts.seat.as_ref())
        else {
            return;
        };
        self.seat_next = Some(now + ASK_EARLY);
        let name = &self.policy.name;
        if let Some(index) = parts.index(name)
            && let Ok(link) = seat_link::connect(&shared.parts.layout.seat_socket(name))
        {
            parts.send(seat::Command::Attach(index, link));
            self.seat_next = None;
        }
    }

    /// Keeps the interrupts of the functions that its VMM has to the VMM's processors, if it is kept to any. Its guest's driver makes them, at each of its starts.
    pub(in super::super) fn keep_interrupts(&mut self) {
        let (Ok(Some(cpus)), Some(_), Some(record), None) =
            (&self.cpus, &self.vmm, &self.record, &self.not_kept)
        else {
            return;
        };
        let sysfs = self.devices.handover.sysfs();
        // Those of its start: the machine file may name others by now.
        let functions: Vec<PciAddress> =
            record.functions.iter().filter_map(|address| address.parse().ok()).collect();
        let mut refused = None;
        for address in functions {
            let function = sysfs.path("bus/pci/devices").join(address.to_string());
            let kept = interrupts::keep(&function.join("msi_irqs"), &sysfs.proc("irq"), cpus);
            if kept.moved > 0 {
                tracing::debug!(domain = self.policy.name, %address, "{} of its interrupts go to its processors now", kept.moved);
            }
            refused = refused.or_else(|| Some((address, kept.refused?)));
        }
        let said = std::mem::replace(&mut self.said_interrupts, refused.is_some());
        if let Some((address, error)) = refused.filter(|_| !said) {
            tracing::warn!(
                domain = self.policy.name,
                %address,
                "interrupts of its PCI function are served by processors that are not its own ({error}): a flood of its network can slow other desktops down"
            );
        }
    }

    /// Looks what its VMM's group waits for.
    pub(in super::super) fn look_at_pressure(&mut self, shared: &mut SupervisorContext) {
        let (Some(group), now) = (self.group.as_ref().filter(|_| self.vmm.is_some()), shared.now())
        else {
            return;
        };
        for resource in Resource::ALL {
            match group.pressure(resource) {
                Ok(percent) => {
                    let change = self.pressure.take(now, resource, percent);
                    self.pressure_changes.extend(change);
                }
                Err(error) if !std::mem::replace(&mut shared.said_no_pressure, true) => {
                    tracing::warn!(
                        domain = self.policy.name,
                        "the kernel does not tell what domains wait for ({}: {error}): one that presses is said nowhere; start the PC with psi=1",
                        resource.file()
                    );
                }
                Err(_) => {}
            }
        }
    }

    fn count_unanswered(&mut self, shared: &mut SupervisorContext, problem: &str) {
        self.unanswered = self.unanswered.saturating_add(1);
        if self.unanswered == SILENT_AFTER {
            tracing::warn!(domain = self.policy.name, "{problem}; its guest runs on for now");
        }
        if self.unanswered == HUNG_AFTER {
            let how = format!("its VMM left {HUNG_AFTER} questions in a row unanswered: {problem}");
            self.feed(shared, Event::Hangs(how));
        }
    }
}

#[cfg(test)]
mod tests;
