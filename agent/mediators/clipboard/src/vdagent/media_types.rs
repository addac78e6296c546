//! Types of content, as the policy and as the protocol have them.

use policy::language::MediaType;

use super::spec::content;

/// Returns the protocol's number for a type of the policy; none where the protocol cannot carry it.
#[must_use]
pub const fn number(media_type: MediaType) -> Option<u32> {
    Some(match media_type {
        MediaType::TextPlain => content::UTF8_TEXT,
        MediaType::TextHtml => return None,
        MediaType::ImagePng => content::IMAGE_PNG,
        MediaType::ImageBmp => content::IMAGE_BMP,
        MediaType::ImageJpeg => content::IMAGE_JPG,
        MediaType::ImageTiff => content::IMAGE_TIFF,
        MediaType::FileList => content::FILE_LIST,
    })
}

/// Returns the policy's type for a number of the protocol.
#[must_use]
pub const fn media_type(number: u32) -> Option<MediaType> {
    Some(match number {
        content::UTF8_TEXT => MediaType::TextPlain,
        content::IMAGE_PNG => MediaType::ImagePng,
        content::IMAGE_BMP => MediaType::ImageBmp,
        content::IMAGE_JPG => MediaType::ImageJpeg,
        content::IMAGE_TIFF => MediaType::ImageTiff,
        content::FILE_LIST => MediaType::FileList,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{MediaType, number};

    #[test]
    fn what_the_protocol_cannot_carry_is_what_the_officers_tools_say_is_not_carried() {
        for (word, media_type) in MediaType::WORDS {
            let gap = policy::enforcement::of_type(media_type);
            assert_eq!(number(media_type).is_none(), gap.is_some(), "{word}");
        }
    }
}
