//! Types of clipboard content.

use super::words::words;

words! {
    /// A type of clipboard content, as an Internet media type where there is one.
    MediaType {
        /// Text without formatting.
        TextPlain = "text/plain",
        /// Text with formatting, as HTML.
        TextHtml = "text/html",
        /// A picture as PNG, the only form in which pictures cross.
        ImagePng = "image/png",
        /// A picture as Windows bitmap.
        ImageBmp = "image/bmp",
        /// A picture as JPEG.
        ImageJpeg = "image/jpeg",
        /// A picture as TIFF.
        ImageTiff = "image/tiff",
        /// Names of files, without the files.
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
