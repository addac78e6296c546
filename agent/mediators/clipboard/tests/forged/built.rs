//! What may be sent is not built from its parts.
use clipboard::grant::{PermittedContent, Secret};
use policy::language::MediaType;

fn build(bytes: Secret) -> PermittedContent {
    let media_type = MediaType::TextPlain;
    PermittedContent { from: 0, to: 1, judged: (media_type, 1), media_type, bytes }
}

fn main() {
    let _ = build;
}
