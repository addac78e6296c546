//! Types of clipboard content.

use super::words::words;

words! {
    /// A type of clipboard content, as an Internet media type where there is one.
    MediaType {
        /// Plain text.
        TextPlain = "text/plain",
        /// Formatted text.
        TextHtml = "text/html",
        /// A picture.
        ImagePng = "image/png",
        /// A picture.
        ImageBmp = "image/bmp",
        /// A picture.
        ImageJpeg = "image/jpeg",
        /// A picture.
        ImageTiff = "image/tiff",
        /// Names of files.
        FileList = "file-list",
    }
}

impl MediaType {
    /// Returns whether detectors can read it. They read text; a picture of a number is a picture to them.
    #[must_use]
    pub const fn is_readable(self) -> bool {
        matches!(self, Self::TextPlain | Self::TextHtml | Self::FileList)
    }
}
