//! `[[detector]]`: what the officer looks for in what crosses.

use super::vocabulary::{Vocabulary, already_taken};
use crate::detect::{BuiltIn, Detector, Pattern};
use crate::diagnostic::{Diagnostic, Spanned};
use crate::document::Form;
use crate::terms::Name;

impl Detector {
    /// Reads one and adds it to the vocabulary.
    pub(crate) fn read(
        mut form: Form<'_>,
        known: &mut Vocabulary,
        names: &mut Vec<Spanned<Name>>,
    ) -> Option<()> {
        let name = known.name(&mut form, "\"chart-number\"");
        let pattern = form.required("regex", r"'(?-u:\b)MRN-?\d{8}(?-u:\b)'", |v| {
            let text = v.string()?;
            let pattern = v.checked(Pattern::new(text))?;
            if let Some(doubled) = pattern.doubled_backslash() {
                v.remark_at(doubled.at, || (doubled.to_string(), doubled.remedy()));
            }
            Some(pattern)
        });
        let sink = form.sink();
        form.close();
        let name = name?;
        if BuiltIn::WORDS.iter().any(|(word, _)| name.as_str() == *word) {
            let message = format!("`{}` is built in and cannot be defined anew", name.value);
            sink.report(Diagnostic::error(name.span, message, "give yours another name"));
        }
        if let Some(first) = names.iter().find(|first| first.value == name.value) {
            sink.report(already_taken(&name, "detector", first.span));
        }
        names.push(name.clone());
        // A pattern that is wrong has been reported; its name is known all the same, so that rules which use it are not
        // reported too.
        known.detectors.push(Detector::Pattern(name.value, pattern.unwrap_or_default()));
        Some(())
    }
}
