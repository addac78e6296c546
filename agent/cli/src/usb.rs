//! `bulkhead usb list|attach|detach` and `bulkhead break-glass`.

use std::fmt::Write;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Common, Outcome, domains, print, values};
use control::commands::{Request, about};
use control::reports::UsbReport;

#[derive(Debug, Subcommand)]
pub(super) enum UsbCommand {
    #[command(about = about("usb-list"))]
    List,
    #[command(about = about("usb-attach"))]
    Attach {
        /// Where it is plugged in, as `bulkhead usb list` shows it
        #[arg(value_name = "BUSID")]
        bus_id: String,
        /// The domain's name, as in the machine file
        domain: String,
    },
    #[command(about = about("usb-detach"))]
    Detach {
        /// Where it is plugged in
        #[arg(value_name = "BUSID")]
        bus_id: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct BreakGlassArgs {
    /// Why, in words, which go on the record; needed unless --end is given
    #[arg(long, value_name = "TEXT", required_unless_present = "end", conflicts_with = "end")]
    reason: Option<String>,
    /// For how long, such as 10m or '10 min'; as long as the policy allows if left out
    #[arg(long = "for", value_name = "TIME", value_parser = values::duration, conflicts_with = "end")]
    time: Option<Duration>,
    /// Close it now; takes no --reason
    #[arg(long)]
    end: bool,
}

pub(super) fn run(common: &Common, command: &UsbCommand) -> Outcome {
    match command {
        UsbCommand::List => list(common),
        UsbCommand::Attach { bus_id, domain } => {
            let request = Request::UsbAttach { bus_id: bus_id.clone(), domain: domain.clone() };
            domains::request(
                common,
                &request,
                &format!("{bus_id} is judged for {domain}; see `bulkhead usb list`"),
            )
        }
        UsbCommand::Detach { bus_id } => {
            let request = Request::UsbDetach { bus_id: bus_id.clone() };
            domains::request(common, &request, &format!("{bus_id} is taken away"))
        }
    }
}

pub(super) fn break_glass(common: &Common, args: &BreakGlassArgs) -> Outcome {
    if args.end {
        return domains::request(common, &Request::EndBreakGlass {}, "break-glass is closed");
    }
    let request = Request::BreakGlass {
        reason: args.reason.clone(),
        seconds: args.time.map(|time| time.as_secs()),
    };
    domains::request(common, &request, "break-glass is open")
}

fn list(common: &Common) -> Outcome {
    let answer = match common.ask(&Request::UsbList {}) {
        Ok(answer) => answer,
        Err(outcome) => return outcome,
    };
    common.done(&answer, || print(&render(answer.usb.as_deref().unwrap_or_default())))
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
