//! Pictures: decoded, and encoded anew as a viewer shows them.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{ImageDecoder, ImageFormat, ImageReader, Limits};
use worker_link::{Kind, PIXELS_MAX, Refused, SIDE_MAX};

use super::pixels::Pixels;
use super::{DECODED_MAX, Encoded, png_rows, structure};

fn format(kind: Kind) -> ImageFormat {
    match kind {
        Kind::Png => ImageFormat::Png,
        Kind::Bmp => ImageFormat::Bmp,
        Kind::Jpeg => ImageFormat::Jpeg,
        Kind::Tiff => ImageFormat::Tiff,
    }
}

/// Checks that the first bytes are those of the declared type.
fn sniff(kind: Kind, bytes: &[u8]) -> Result<ImageFormat, Refused> {
    let declared = format(kind);
    match image::guess_format(bytes) {
        Ok(found) if found == declared => Ok(declared),
        _ if declared == ImageFormat::Tiff && structure::is_big_tiff(bytes) => {
            Err(Refused::UnknownKind)
        }
        _ => Err(Refused::NotAsDeclared),
    }
}

fn decoder(format: ImageFormat, bytes: &[u8]) -> Result<impl ImageDecoder, Refused> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(DECODED_MAX);
    reader.limits(limits);
    reader.into_decoder().map_err(refused)
}

fn refused(error: image::ImageError) -> Refused {
    match error {
        image::ImageError::Limits(_) => Refused::TooLarge,
        image::ImageError::Unsupported(_) => Refused::UnknownKind,
        _ => Refused::Damaged,
    }
}

pub(super) fn encode_anew(kind: Kind, bytes: &[u8], most: usize) -> Result<Encoded, Refused> {
    let format = sniff(kind, bytes)?;
    let pages = match format {
        ImageFormat::Png => structure::png_frames(bytes),
        ImageFormat::Tiff => structure::tiff_pages(bytes),
        ImageFormat::Jpeg if !structure::is_common_jpeg(bytes) => {
            return Err(Refused::UnknownKind);
        }
        ImageFormat::Jpeg if !structure::jpeg_is_whole(bytes) => return Err(Refused::Damaged),
        _ => 1,
    };
    let first_of = Some(pages).filter(|pages| *pages > 1);
    if format == ImageFormat::Png
        && structure::png_orientation(bytes) == Orientation::NoTransforms
        && let Some(png) = png_rows::encode_anew(bytes, most)?
    {
        return Ok(Encoded { png, turned: false, made_opaque: false, first_of });
    }
    if format == ImageFormat::Png {
        // The decoder below looks at no checksum of the pixels, and not behind them.
        png_rows::check(bytes)?;
    }
    let mut decoder = decoder(format, bytes)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > PIXELS_MAX || decoder.total_bytes() > DECODED_MAX {
        return Err(Refused::TooLarge);
    }
    if pixels == 0 {
        return Err(Refused::Damaged);
    }
    let orientation = match format {
        ImageFormat::Png => structure::png_orientation(bytes),
        _ => decoder.orientation().unwrap_or(Orientation::NoTransforms),
    };
    let turned = orientation != Orientation::NoTransforms;
    let mut pixels =
        Pixels::decode(decoder).map_err(|error| error.map_or(Refused::UnknownKind, refused))?;
    let made_opaque = pixels.is_invisible();
    if format == ImageFormat::Tiff && !made_opaque && structure::tiff_has_associated_alpha(bytes) {
        pixels.take_alpha_out();
    }
    let png = pixels.encode(orientation, made_opaque, bytes.len(), most)?;
    Ok(Encoded { png, turned, made_opaque, first_of })
}

/// Computes the CRC of a PNG's chunk (PNG, third edition, annex D).
#[cfg(test)]
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum: u32, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            sum >> 1 ^ (0xedb8_8320 & 0u32.wrapping_sub(sum & 1))
        })
    })
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "a pattern")]
mod tests {
    use image::DynamicImage;

    use super::*;

    fn picture(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
        let image = image::RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([(x * 7) as u8, (y * 11) as u8, (x ^ y) as u8])
        });
        let mut bytes = Vec::new();
        DynamicImage::from(image).write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    }

    #[test]
    fn every_type_is_encoded_anew_with_the_same_pixels() {
        for (kind, format) in [
            (Kind::Png, ImageFormat::Png),
            (Kind::Bmp, ImageFormat::Bmp),
            (Kind::Tiff, ImageFormat::Tiff),
            (Kind::Jpeg, ImageFormat::Jpeg),
        ] {
            let before = picture(format, 40, 30);
            let after = encode_anew(kind, &before, 1 << 20).unwrap().png;
            let pixels = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().into_rgb8();
            assert_eq!(pixels(&before), pixels(&after));
            assert_eq!(image::guess_format(&after).unwrap(), ImageFormat::Png);
        }
    }

    #[test]
    fn a_png_of_every_kind_is_encoded_anew_with_the_same_pixels() {
        use image::{DynamicImage as D, ImageBuffer as B};
        let wave = |x: u32, y: u32| (x * 7 + y * 3) as u8;
        let kinds = [
            D::from(B::from_fn(33, 9, |x, y| image::Luma([wave(x, y)]))),
            D::from(B::from_fn(33, 9, |x, y| image::LumaA([wave(x, y), wave(y, x)]))),
            D::from(B::from_fn(33, 9, |x, y| image::Rgb([wave(x, y), 3, wave(y, x)]))),
            D::from(B::from_fn(33, 9, |x, y| image::Rgba([wave(x, y), 3, 9, wave(y, x)]))),
            D::from(B::from_fn(33, 9, |x, y| image::Rgb([u16::from(wave(x, y)) * 251, 7, 65535]))),
            D::from(B::from_fn(33, 9, |x, y| image::Luma([u16::from(wave(x, y)) * 16 + 1]))),
        ];
        for kind in kinds {
            let mut before = Vec::new();
            kind.write_to(&mut Cursor::new(&mut before), ImageFormat::Png).unwrap();
            let after = encode_anew(Kind::Png, &before, 1 << 20).unwrap().png;
            let after = image::load_from_memory(&after).unwrap();
            assert_eq!(after.to_rgba16(), kind.to_rgba16(), "{:?}", kind.color());
            assert_eq!(after.color(), kind.color());
        }
    }

    #[test]
    fn an_interlaced_png_and_one_with_a_palette_keep_their_pixels() {
        // Seven colours in a palette, two bits of transparency.
        let mut palette = Vec::new();
        let mut encoder = png::Encoder::new(&mut palette, 16, 4);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::Four);
        encoder.set_palette((0..21).collect::<Vec<u8>>());
        encoder.set_trns(vec![255, 128, 0]);
        encoder
            .write_header()
            .unwrap()
            .write_image_data(&[0x01, 0x23, 0x45, 0x60].repeat(8))
            .unwrap();
        // Adam7 of one pixel is the picture itself; the header's bit and its checksum say that it is interlaced.
        let mut interlaced = picture(ImageFormat::Png, 1, 1);
        interlaced[28] = 1;
        let sum = crc32(&interlaced[12..29]);
        interlaced[29..33].copy_from_slice(&sum.to_be_bytes());
        for before in [palette, interlaced] {
            let after = encode_anew(Kind::Png, &before, 1 << 20).unwrap().png;
            let pixels = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().into_rgba8();
            assert_eq!(pixels(&before), pixels(&after));
        }
    }

    #[test]
    fn what_hangs_on_a_picture_does_not_cross() {
        let mut before = picture(ImageFormat::Png, 8, 8);
        before.extend(b"PATIENT 123456-1234567");
        let after = encode_anew(Kind::Png, &before, 1 << 20).unwrap().png;
        assert!(!after.windows(7).any(|window| window == b"PATIENT"));
    }

    #[test]
    fn a_png_with_much_beside_its_pixels_crosses_without_it() {
        for kind in [*b"tEXt", *b"iTXt", *b"zTXt", *b"eXIf", *b"vpAg", *b"iCCP"] {
            let mut before = picture(ImageFormat::Png, 8, 8);
            let mut chunk = kind.to_vec();
            chunk.extend(b"Comment\0\0");
            chunk.resize(4 << 20, b'x');
            let sum = crc32(&chunk);
            let length = u32::try_from(chunk.len() - 4).unwrap();
            // After the header.
            before.splice(33..33, [&length.to_be_bytes()[..], &chunk, &sum.to_be_bytes()].concat());
            let after = encode_anew(Kind::Png, &before, 1 << 20);
            let name = String::from_utf8_lossy(&kind);
            assert!(after.is_ok_and(|after| after.png.len() < 4096), "{name}");
        }
    }

    #[test]
    fn a_picture_that_is_something_else_is_refused() {
        let png = picture(ImageFormat::Png, 8, 8);
        assert_eq!(sniff(Kind::Jpeg, &png).unwrap_err(), Refused::NotAsDeclared);
        assert!(sniff(Kind::Png, b"<html>").is_err());
        assert!(sniff(Kind::Png, b"").is_err());
    }

    #[test]
    fn a_picture_cut_off_anywhere_is_refused_or_harmless() {
        for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::Jpeg] {
            let whole = picture(format, 20, 20);
            let kind = Kind::ALL.into_iter().find(|kind| super::format(*kind) == format).unwrap();
            for length in (0..whole.len()).step_by(13) {
                let _ = encode_anew(kind, &whole[..length], 1 << 20);
            }
        }
    }

    #[test]
    fn a_jpeg_that_ends_early_is_called_damaged_and_not_filled_up_with_grey() {
        let whole = picture(ImageFormat::Jpeg, 60, 60);
        for length in 3..whole.len() {
            let cut = encode_anew(Kind::Jpeg, &whole[..length], 1 << 20);
            assert_eq!(cut.unwrap_err(), Refused::Damaged, "{length} bytes");
        }
        let followed = [&whole[..], b"more"].concat();
        encode_anew(Kind::Jpeg, &followed, 1 << 20).unwrap();
        // Restarts and fill bytes stand in what is coded, and other bytes between segments.
        let more = [&whole[..2], b"\0\xff\xff", &whole[2..]].concat();
        assert!(structure::jpeg_is_whole(&more));
        assert!(structure::jpeg_is_whole(b"\xff\xd8\xff\xda\0\x02a\xff\0\xff\xd0b\xff\xff\xd9"));
        assert!(!structure::jpeg_is_whole(b"\xff\xd8\xff\xda\0\x02a\xff\0\xff\xd0b\xff"));
    }

    /// Puts the checksum of each chunk right.
    fn with_checksums(mut png: Vec<u8>) -> Vec<u8> {
        let mut at = 8;
        while at < png.len() {
            let length = u32::from_be_bytes(png[at..at + 4].try_into().unwrap()) as usize;
            let end = at + 8 + length;
            let sum = crc32(&png[at + 4..end]);
            png[end..end + 4].copy_from_slice(&sum.to_be_bytes());
            at = end + 4;
        }
        png
    }

    #[test]
    fn a_png_of_which_any_byte_is_another_or_the_last_ones_are_missing_is_called_damaged() {
        let plain = picture(ImageFormat::Png, 20, 20);
        // One pixel is the same interlaced or not.
        let mut interlaced = picture(ImageFormat::Png, 1, 1);
        interlaced[28] = 1;
        let interlaced = with_checksums(interlaced);
        for whole in [plain, interlaced] {
            encode_anew(Kind::Png, &whole, 1 << 20).unwrap();
            for at in 8..whole.len() {
                for bit in [0, 7] {
                    let mut other = whole.clone();
                    other[at] ^= 1 << bit;
                    let refused = encode_anew(Kind::Png, &other, 1 << 20).unwrap_err();
                    let known = [Refused::Damaged, Refused::TooLarge, Refused::UnknownKind];
                    assert!(known.contains(&refused), "bit {bit} of byte {at}: {refused:?}");
                }
            }
            for length in 8..whole.len() {
                assert!(encode_anew(Kind::Png, &whole[..length], 1 << 20).is_err(), "{length}");
            }
            // The checksum of the pixels themselves, in a chunk whose own holds: it ends before that and the end, of 12 bytes.
            let mut other = whole.clone();
            other[whole.len() - 17] ^= 1;
            let refused = encode_anew(Kind::Png, &with_checksums(other), 1 << 20);
            assert_eq!(refused.unwrap_err(), Refused::Damaged);
        }
        // One that is turned.
        let turned = include_bytes!("samples/png-exif-orient6.png").to_vec();
        assert!(encode_anew(Kind::Png, &turned, 1 << 20).unwrap().turned);
        let pixels = turned.windows(4).position(|bytes| bytes == b"IDAT").unwrap();
        for other in [pixels + 20, turned.len() - 18] {
            let mut damaged = turned.clone();
            damaged[other] ^= 1;
            assert_eq!(encode_anew(Kind::Png, &damaged, 1 << 20).unwrap_err(), Refused::Damaged);
        }
    }

    #[test]
    fn a_picture_bomb_is_refused_before_it_is_decoded() {
        // A PNG header that declares 60,000 x 60,000, and a BMP that declares 16,000 x 16,000 pixels of 4 bytes.
        let mut png = picture(ImageFormat::Png, 8, 8);
        png[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        png[20..24].copy_from_slice(&60_000u32.to_be_bytes());
        assert!(encode_anew(Kind::Png, &png, 1 << 20).is_err());
        let mut bmp = picture(ImageFormat::Bmp, 8, 8);
        bmp[18..22].copy_from_slice(&16_000u32.to_le_bytes());
        bmp[22..26].copy_from_slice(&16_000u32.to_le_bytes());
        assert_eq!(encode_anew(Kind::Bmp, &bmp, 1 << 20).unwrap_err(), Refused::TooLarge);
    }

    #[test]
    fn a_picture_that_grows_beyond_the_limit_is_refused() {
        let jpeg = picture(ImageFormat::Jpeg, 200, 200);
        assert_eq!(encode_anew(Kind::Jpeg, &jpeg, 100).unwrap_err(), Refused::TooLarge);
        let png = picture(ImageFormat::Png, 200, 200);
        assert_eq!(encode_anew(Kind::Png, &png, 100).unwrap_err(), Refused::TooLarge);
    }
}
