//! What may be sent to one domain's guest is not sent to another's.
use clipboard::grant::PermittedContent;

fn redirect(mut content: PermittedContent) -> PermittedContent {
    content.to = 2;
    content
}

fn main() {
    let _ = redirect;
}
