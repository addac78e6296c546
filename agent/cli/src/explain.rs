//! `bulkhead policy explain`: what would happen to something, by which rule, and why.
//!
//! Exit status 1 means that it would be denied, and nothing else: asked about what neither the policy nor the language knows, or of
//! a file that holds no policy, it is 2.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use clipboard_content::judgement::{Fit, judge};
use clipboard_content::{HELD_MAX, Rejected, refused};
use policy::Policy;
use policy::decide::{Decision, Paste};
use policy::document::{Mistake, nearest};
use policy::language::MediaType;
use policy::request::{Context, Request, UsbDescription, UsbRequest};
use policy_tools::{Explanation, explain_paste};
use usbsysfs::{BusId, UsbDevices};

use super::{Common, Failure, Outcome, in_force, print, values};
use config::files::{self, FileFault};

/// Largest file looked into for `--text-file`, in bytes.
const CONTENT_MAX: u64 = 64 << 20;

/// What wants to cross.
#[derive(Debug, Subcommand)]
pub(super) enum ExplainRequest {
    /// A clipboard transfer
    Clipboard(ClipboardArgs),
    /// A USB device
    Usb(UsbArgs),
}

/// Arguments that describe a clipboard transfer.
#[derive(Debug, Args)]
pub(super) struct ClipboardArgs {
    /// The domain it comes from
    #[arg(long, value_name = "DOMAIN")]
    from: String,
    /// The domain it goes to
    #[arg(long, value_name = "DOMAIN")]
    to: String,
    /// Its type, like text/plain or image/png
    #[arg(long = "type", value_name = "TYPE", value_parser = media_type)]
    media_type: MediaType,
    /// Its size in bytes [default: that of --text-file as it would be pasted]
    #[arg(long, value_name = "N", value_parser = values::bytes, required_unless_present = "text_file")]
    bytes: Option<u64>,
    /// Its content, as it was copied: it is cleaned and looked into as the agent does; `-` is standard input
    #[arg(long, value_name = "FILE")]
    text_file: Option<PathBuf>,
    /// While break-glass is open; it opens nothing of the clipboard
    #[arg(long)]
    break_glass: bool,
}

/// Arguments that describe a USB device and the port it is in.
#[derive(Debug, Args)]
pub(super) struct UsbArgs {
    #[command(flatten)]
    which: DeviceSelector,
    /// The domain somebody attaches it to by hand [default: the rules decide]
    #[arg(long, value_name = "DOMAIN")]
    to: Option<String>,
    /// While break-glass is open
    #[arg(long)]
    break_glass: bool,
}

/// Arguments that give a device's descriptors.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct DeviceSelector {
    /// Its descriptors: vendor=08e6,product=3437,serial=A1,interfaces=0b/00/00, or as lsusb and USBGuard write them:
    /// 08e6:3437,interfaces=0b:00:00
    #[arg(long, value_name = "DESCRIPTION", value_parser = device)]
    device: Option<UsbDescription>,
    /// The one that is plugged in there, as `bulkhead usb list` shows it
    #[arg(long, value_name = "BUSID", value_parser = bus_id)]
    busid: Option<BusId>,
    /// The one whose folder this is, such as /sys/bus/usb/devices/1-4
    #[arg(long, value_name = "PATH")]
    sysfs: Option<PathBuf>,
}

pub(super) fn media_type(text: &str) -> Result<MediaType, String> {
    let known = MediaType::WORDS.iter().find(|(word, _)| *word == text);
    known.map(|(_, media_type)| *media_type).ok_or_else(|| {
        let words = MediaType::WORDS.iter().map(|(word, _)| *word);
        match nearest(text, words.clone()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("known are {}", words.collect::<Vec<_>>().join(", ")),
        }
    })
}

fn device(text: &str) -> Result<UsbDescription, String> {
    text.parse().map_err(|mistake: Mistake| mistake.to_string())
}

fn bus_id(text: &str) -> Result<BusId, String> {
    text.parse::<BusId>().map_err(|error| error.to_string())
}

pub(super) fn run(common: &Common, file: Option<&Path>, what: &ExplainRequest) -> Outcome {
    if file == Some(Path::new("-"))
        && matches!(what, ExplainRequest::Clipboard(args) if args.text_file.as_deref() == file)
    {
        let why = "standard input holds the policy or the text: name a file for the other";
        return common.fail(Failure::Misuse, why);
    }
    let policy = match in_force::read_or(common, file, Failure::Misuse) {
        Ok(policy) => policy,
        Err(outcome) => return outcome,
    };
    let explained = match what {
        ExplainRequest::Clipboard(args) => {
            clipboard(&policy, args).map(|explanation| (None, explanation))
        }
        ExplainRequest::Usb(args) => usb(&policy, args),
    };
    let (device, explanation) = match explained {
        Ok(explained) => explained,
        Err(problem) => return common.fail(Failure::Misuse, &problem),
    };
    let verdict = match explanation.verdict {
        Decision::Deny => Err(format!("denied: {}", explanation.reason)),
        Decision::Allow | Decision::Ask | Decision::ReadOnly => Ok(()),
    };
    common.answer(verdict, &explanation, || {
        let device = device.map(|device| format!("device    {device}\n")).unwrap_or_default();
        print(&format!("{device}{explanation}"));
    })
}

/// Checks that a name on the command line is a domain's: nothing that is misspelt is denied for it.
fn known<'n>(policy: &Policy, option: &str, name: &'n str) -> Result<&'n str, String> {
    match policy.find_domain(name) {
        Ok(_) => Ok(name),
        Err(mistake) => Err(format!("--{option}: {mistake}")),
    }
}

/// Returns the explanation, and the device as it was found if it was not described.
fn usb(policy: &Policy, args: &UsbArgs) -> Result<(Option<UsbDescription>, Explanation), String> {
    let to = args.to.as_deref().map(|to| known(policy, "to", to)).transpose()?;
    let found = match &args.which {
        DeviceSelector { busid: Some(id), .. } => {
            Some(usbsysfs::described(&UsbDevices::default(), id)?)
        }
        DeviceSelector { sysfs: Some(path), .. } => Some(in_folder(path)?),
        DeviceSelector { .. } => None,
    };
    let Some(device) = found.as_ref().or(args.which.device.as_ref()) else {
        return Err("no device is named: give --device, --busid or --sysfs".to_owned());
    };
    let request = Request::Usb(UsbRequest { device: device.device(), to });
    let explanation =
        policy_tools::explain(policy, &request, &Context { break_glass: args.break_glass });
    Ok((found, explanation))
}

/// Reads the device whose folder this is in sysfs, wherever its path comes from.
fn in_folder(path: &Path) -> Result<UsbDescription, String> {
    let failed = |why: String| format!("{}: {why}", path.display());
    let name = |path: &Path| -> String {
        path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned()
    };
    let own = name(path);
    let (device, interface) = own.split_once(':').unwrap_or((&own, ""));
    let id = device.parse::<BusId>().map_err(|error| failed(error.to_string()))?;
    // `1-4:1.0` is one of its interfaces: it lies in the device, and the kernel's list has it beside the device too.
    let above = path.parent().filter(|above| !interface.is_empty() && name(above) == device);
    let folder = above.unwrap_or(path).parent().filter(|folder| !folder.as_os_str().is_empty());
    usbsysfs::described(&UsbDevices::at(folder.unwrap_or(Path::new("."))), &id).map_err(failed)
}

fn clipboard(policy: &Policy, args: &ClipboardArgs) -> Result<Explanation, String> {
    let content = args.text_file.as_deref().map(content).transpose()?;
    let paste = Paste {
        from: known(policy, "from", &args.from)?,
        to: known(policy, "to", &args.to)?,
        media_type: args.media_type,
        content: content.as_deref(),
        size: args.bytes,
    };
    let explanation = explain_paste(policy, &paste);
    // What the policy lets through may still be unfit to cross, which the agent and its worker find out by the same functions.
    match fit_to_cross(policy, &paste) {
        Err(problem) if explanation.verdict != Decision::Deny => {
            Ok(explanation.refused(problem.to_string()))
        }
        _ => Ok(explanation),
    }
}

/// Checks that what would be pasted is fit to cross. A picture is decoded here: it is the officer's own.
fn fit_to_cross(policy: &Policy, paste: &Paste<'_>) -> Result<(), Rejected> {
    match (judge(policy, paste).fit?, paste.content) {
        (Fit::Picture(kind), Some(picture)) => {
            let most = usize::try_from(HELD_MAX).unwrap_or(usize::MAX);
            let encoded = pictures::encode_anew(kind, picture, most);
            encoded.map(drop).map_err(|why| refused(paste.media_type, why))
        }
        _ => Ok(()),
    }
}

fn content(file: &Path) -> Result<Vec<u8>, String> {
    if file == Path::new("-") {
        return files::bytes_in(io::stdin().lock(), CONTENT_MAX)
            .map_err(|fault| format!("cannot read standard input: {fault}"));
    }
    let opened = fileopen::given(file).map_err(FileFault::from);
    opened
        .and_then(|opened| files::bytes_in(opened, CONTENT_MAX))
        .map_err(|fault| format!("cannot read {}: {fault}", file.display()))
}
