//! `bulkhead usb list|attach|detach` and `bulkhead break-glass`.

use std::fmt::Write;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Common, Outcome, domains, print};
use crate::control::protocol::Request;
use crate::usb::UsbReport;

#[derive(Debug, Subcommand)]
pub(super) enum UsbCommand {
    /// Show every USB device, who has it, and why
    List,
    /// Attach a device to a domain, if a rule of the policy for that domain admits it
    Attach {
        /// Where it is plugged in, as `bulkhead usb list` shows it
        #[arg(value_name = "BUSID")]
        bus_id: String,
        /// The domain
        domain: String,
    },
    /// Take a device away from its domain; it stays off until it is attached or plugged in again
    Detach {
        /// Where it is plugged in
        #[arg(value_name = "BUSID")]
        bus_id: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct BreakGlassArgs {
    /// Why, in words; it goes on the record
    #[arg(long, value_name = "TEXT", required_unless_present = "end")]
    reason: Option<String>,
    /// For how long, such as 10m; as long as the policy allows if left out
    #[arg(long = "for", value_name = "TIME", value_parser = duration, conflicts_with = "end")]
    time: Option<Duration>,
    /// Close it now
    #[arg(long)]
    end: bool,
}

/// `90s`, `10m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let help = || format!("`{text}` is no time; write it as 90s, 10m or 1h");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(help)?;
    let number: u64 = number.parse().map_err(|_| help())?;
    let seconds = match unit {
        "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3600),
        _ => None,
    };
    seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or_else(help)
}

pub(super) fn run(common: &Common, command: &UsbCommand) -> Outcome {
    match command {
        UsbCommand::List => list(common),
        UsbCommand::Attach { bus_id, domain } => {
            let request = Request::UsbAttach { bus_id: bus_id.clone(), domain: domain.clone() };
            domains::say(
                common,
                &request,
                &format!("{bus_id} is judged for {domain}; see `bulkhead usb list`"),
            )
        }
        UsbCommand::Detach { bus_id } => {
            let request = Request::UsbDetach { bus_id: bus_id.clone() };
            domains::say(common, &request, &format!("{bus_id} is taken away"))
        }
    }
}

pub(super) fn break_glass(common: &Common, args: &BreakGlassArgs) -> Outcome {
    if args.end {
        return domains::say(common, &Request::EndBreakGlass, "break-glass is closed");
    }
    let request = Request::BreakGlass {
        reason: args.reason.clone(),
        seconds: args.time.map(|time| time.as_secs()),
    };
    domains::say(common, &request, "break-glass is open")
}

fn list(common: &Common) -> Outcome {
    let answer = match common.ask(&Request::UsbList) {
        Ok(answer) => answer,
        Err(outcome) => return outcome,
    };
    let devices = answer.usb.clone().unwrap_or_default();
    if common.json {
        common.print_json(&answer);
    } else {
        print(&render(&devices));
    }
    Outcome::Yes
}

fn render(devices: &[UsbReport]) -> String {
    if devices.is_empty() {
        return "no USB device is plugged in\n".to_owned();
    }
    let width = devices.iter().map(|device| device.bus_id.len()).chain([5]).max().unwrap_or(5);
    let mut out = format!("{:width$}  {:8}  {:12}  DEVICE\n", "BUSID", "STATE", "DOMAIN");
    for device in devices {
        let UsbReport { bus_id, name, state, domain, verdict, rule, why, device, .. } = device;
        let domain = domain.as_deref().unwrap_or("-");
        let name = if name.is_empty() { "(no name)" } else { name };
        // Writing to a string does not fail.
        let _ = writeln!(out, "{bus_id:width$}  {state:8}  {domain:12}  {name} [{device}]");
        let by = match (verdict, rule) {
            (Some(verdict), Some(rule)) => format!("{verdict} by rule `{rule}`: "),
            _ => String::new(),
        };
        let _ = writeln!(out, "{:width$}  {by}{why}", "");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "m", "10", "-1m", "1.5h", "0s", "9999999999999999999h", "10분"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
