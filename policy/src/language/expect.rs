//! `[[expect]]`: the policy's own tests.

use super::domain::DomainId;
use super::vocabulary::Vocabulary;
use crate::diagnostic::{Diagnostic, Source, Span, Spanned};
use crate::document::{Form, Mistake, Value};
use crate::request::{UsbDescription, UsbFunction};
use crate::terms::{Decision, MediaType, RuleId, check_port};

/// A request with the verdict the officer expects.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// Where it stands in the text.
    pub span: Span,
    /// The line it starts on, from 1.
    pub line: usize,
    /// The request that is decided.
    pub request: ExpectedRequest,
    /// Whether break-glass is open.
    pub break_glass: bool,
    /// What the answer must be.
    pub verdict: Spanned<Decision>,
    /// Which rule must give it, if the officer cares.
    pub rule: Option<Spanned<RuleId>>,
}

/// What an expectation asks.
#[derive(Clone, Debug)]
pub enum ExpectedRequest {
    /// A clipboard transfer.
    Clipboard {
        /// The domain whose clipboard it is.
        from: DomainId,
        /// The domain that it would be pasted in.
        to: DomainId,
        /// The type of the content.
        media_type: MediaType,
        /// How big, in bytes; `None` is the size of the text as it would be pasted.
        bytes: Option<u64>,
        /// What it says, for the detectors.
        text: Option<String>,
    },
    /// A USB device.
    Usb {
        /// What the device says of itself.
        device: UsbDescription,
        /// The domain it is attached to by hand; `None` when it is merely plugged in.
        to: Option<DomainId>,
    },
}

/// The keys of the questions.
const CLIPBOARD_KEYS: &[&str] = &["to", "from", "type", "bytes", "text"];
const USB_KEYS: &[&str] = &["to", "vendor", "product", "serial", "port", "interfaces"];

impl Expectation {
    pub(crate) fn read(mut form: Form<'_>, known: &Vocabulary, source: &Source) -> Option<Self> {
        let span = form.span();
        let asked = form.has("clipboard") != form.has("usb");
        let beside = [("clipboard", CLIPBOARD_KEYS), ("usb", USB_KEYS)].into_iter().any(
            |(question, keys)| {
                // `to` is a key of both.
                let [_to, own @ ..] = keys else { return false };
                own.iter().any(|key| form.has(key)) && form.belong_into(question, keys)
            },
        );
        let clipboard = form.optional("clipboard", |v| clipboard(v, known));
        let usb = form.optional("usb", |v| usb(v, known));
        if !asked && !beside {
            form.sink().report(Diagnostic::error(
                span,
                "an expectation asks exactly one question",
                "write either `clipboard = { … }` or `usb = { … }`",
            ));
        }
        let verdict = form.required("verdict", "\"deny\"", |v| {
            Some(v.spanned(v.choice("a verdict", &Decision::WORDS)?))
        });
        let rule = form.optional("rule", |v| Some(v.spanned(v.parsed()?)));
        let break_glass = form.optional("break_glass", Value::boolean).unwrap_or(false);
        form.close();
        let line = source.line(span.start);
        Some(Self { span, line, request: clipboard.or(usb)?, break_glass, verdict: verdict?, rule })
    }
}

fn clipboard(value: Value<'_>, known: &Vocabulary) -> Option<ExpectedRequest> {
    let mut form = value.form("the expected request")?;
    let from = form.required("from", "\"clinical\"", |v| known.domain(v));
    let to = form.required("to", "\"internet\"", |v| known.domain(v));
    let media_type = form
        .required("type", "\"text/plain\"", |v| v.choice("a clipboard type", &MediaType::WORDS));
    let text = form.optional("text", |v| v.string().map(str::to_owned));
    let size = |v: Value<'_>| v.size("the size in bytes", 0..=u64::MAX);
    let bytes = match &text {
        Some(_) => form.optional("bytes", size),
        None => form.required("bytes", "10", size),
    };
    form.close();
    if text.is_none() && bytes.is_none() {
        return None;
    }
    Some(ExpectedRequest::Clipboard {
        from: *from?,
        to: *to?,
        media_type: media_type?,
        bytes,
        text,
    })
}

fn usb(value: Value<'_>, known: &Vocabulary) -> Option<ExpectedRequest> {
    let mut form = value.form("the expected request")?;
    let number = |what: &'static str| move |v: Value<'_>| v.device_number(what, 4);
    let vendor = form.required("vendor", "0x08e6", number("the vendor number"));
    let product = form.required("product", "0x3437", number("the product number"));
    let string = |v: Value<'_>| v.string().map(str::to_owned);
    let serial = form.optional("serial", string);
    let port = form.optional("port", |v| {
        let port = v.string()?;
        if let Err(Mistake { message, help, .. }) = check_port(port) {
            v.remark(|| (format!("{message}, so no device is ever asked about by this"), help));
        }
        Some(port.to_owned())
    });
    let functions = form.required("interfaces", "\"08/06/50\"", interfaces);
    let to = form.optional("to", |v| known.domain(v)).map(|to| *to);
    form.close();
    let (vendor, product, functions) = (vendor?, product?, functions?);
    Some(ExpectedRequest::Usb {
        device: UsbDescription { vendor, product, serial, port, functions },
        to,
    })
}

/// Reads interfaces as the language has always written them. What the command line takes besides would be refused by PCs of older
/// versions.
fn interfaces(value: Value<'_>) -> Option<Vec<UsbFunction>> {
    let text = value.string()?;
    let functions = value.checked(UsbFunction::list(text))?;
    let code = |code: &str| {
        let digits = code.strip_prefix("0x").unwrap_or(code);
        (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let as_always = |item: &str| {
        let (codes, _) = item.split_once(':').unwrap_or((item, ""));
        codes.split('/').count() == 3 && codes.split('/').all(code)
    };
    if text.split('+').all(as_always) && !text.contains(char::is_whitespace) {
        return Some(functions);
    }
    let right: Vec<String> = functions.iter().map(ToString::to_string).collect();
    value.wrong(
        format!("\"{}\" is not how interfaces are written here", text.escape_debug()),
        format!("write \"{}\"", right.join("+")),
    )
}
