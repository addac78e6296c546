//! Pictures as programs make them (`samples`), and what is to come of each.

use image::{DynamicImage, GenericImageView};
use worker_link::{Kind, Refused};

use super::{Encoded, encode_anew};

fn crossed(kind: Kind, bytes: &[u8]) -> Result<(DynamicImage, Encoded), Refused> {
    let encoded = encode_anew(kind, bytes, 32 << 20)?;
    Ok((image::load_from_memory(&encoded.png).unwrap(), encoded))
}

#[test]
fn a_picture_arrives_the_way_up_that_a_viewer_shows_it() {
    let samples: [(Kind, &[u8], &[u8]); 2] = [
        (
            Kind::Jpeg,
            include_bytes!("samples/jpeg-exif-orient6.jpg"),
            include_bytes!("samples/jpeg-exif-orient6.jpg.ref.png"),
        ),
        (
            Kind::Png,
            include_bytes!("samples/png-exif-orient6.png"),
            include_bytes!("samples/png-exif-orient6.png.ref.png"),
        ),
    ];
    for (kind, sample, reference) in samples {
        let (after, changes) = crossed(kind, sample).unwrap();
        let reference = image::load_from_memory(reference).unwrap();
        assert_eq!(after.dimensions(), reference.dimensions());
        let off = |(a, b): (&u8, &u8)| u32::from(a.abs_diff(*b));
        let worst = after.to_rgb8().iter().zip(reference.to_rgb8().iter()).map(off).max();
        assert!(worst <= Some(8), "{kind:?}: {worst:?}");
        assert!(changes.turned);
    }
}

#[test]
fn each_of_the_eight_orientations_is_applied() {
    // A TIFF whose pixels are all different, in each orientation (tag 274).
    let image =
        image::GrayImage::from_fn(5, 3, |x, y| image::Luma([u8::try_from(x * 10 + y).unwrap()]));
    for exif in 1..=8u8 {
        let mut tiff = Vec::new();
        DynamicImage::from(image.clone())
            .write_to(&mut std::io::Cursor::new(&mut tiff), image::ImageFormat::Tiff)
            .unwrap();
        let (_, changes) = crossed(Kind::Tiff, &tiff).unwrap();
        assert!(!changes.turned);
        let (after, changes) = crossed(Kind::Tiff, &tiff_turned(exif)).unwrap();
        assert_eq!(changes.turned, exif != 1);
        let mut stored =
            image::GrayImage::from_raw(2, 2, vec![1, 2, 3, 4]).map(DynamicImage::from).unwrap();
        stored.apply_orientation(image::metadata::Orientation::from_exif(exif).unwrap());
        assert_eq!(after.to_luma8(), stored.to_luma8(), "orientation {exif} of a TIFF");
        let mut expected = DynamicImage::from(image.clone());
        expected.apply_orientation(image::metadata::Orientation::from_exif(exif).unwrap());
        let png = with_exif(&image, exif);
        let (after, _) = crossed(Kind::Png, &png).unwrap();
        assert_eq!(after.to_luma8(), expected.to_luma8(), "orientation {exif}");
    }
}

/// A TIFF of two by two grey pixels, 1 to 4, with this orientation (TIFF 6.0, section 8).
fn tiff_turned(orientation: u8) -> Vec<u8> {
    let tags: [(u16, u16); 9] = [
        (256, 2),
        (257, 2),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (274, orientation.into()),
        (278, 2),
        (279, 4),
    ];
    let mut tiff = b"II*\0\x0c\0\0\0\x01\x02\x03\x04\x09\0".to_vec();
    for (tag, value) in tags {
        // SHORT, once.
        for half in [tag, 3, 1, 0, value, 0] {
            tiff.extend(half.to_le_bytes());
        }
    }
    tiff.extend([0; 4]);
    tiff
}

/// A PNG with an `eXIf` chunk after its pixels, where readers that stop at the pixels do not find it.
fn with_exif(image: &image::GrayImage, orientation: u8) -> Vec<u8> {
    let mut png = Vec::new();
    DynamicImage::from(image.clone())
        .write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png)
        .unwrap();
    let mut exif = b"eXIfMM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let length = u32::try_from(exif.len() - 4).unwrap().to_be_bytes();
    let sum = super::picture::crc32(&exif).to_be_bytes();
    let end = png.len() - 12;
    png.splice(end..end, [&length[..], &exif, &sum].concat());
    png
}

#[test]
fn a_picture_that_is_transparent_everywhere_is_opaque() {
    let bmp = include_bytes!("samples/bmp32-v5-alphamask-but-alpha0.bmp");
    let mut png = Vec::new();
    let clear = image::RgbaImage::from_fn(9, 9, |x, y| {
        image::Rgba([u8::try_from(x * 20).unwrap(), u8::try_from(y * 20).unwrap(), 7, 0])
    });
    DynamicImage::from(clear)
        .write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png)
        .unwrap();
    for (kind, sample) in [(Kind::Bmp, &bmp[..]), (Kind::Png, &png)] {
        let before = image::load_from_memory(sample).unwrap();
        let (after, changes) = crossed(kind, sample).unwrap();
        assert!(after.to_rgba8().pixels().all(|pixel| pixel.0[3] == 255));
        assert_eq!(after.to_rgb8(), before.to_rgb8());
        assert!(changes.made_opaque);
    }
    // One pixel that is seen: it is meant so.
    let mut some = image::RgbaImage::new(9, 9);
    some.put_pixel(8, 8, image::Rgba([1, 2, 3, 4]));
    let mut png = Vec::new();
    DynamicImage::from(some.clone())
        .write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png)
        .unwrap();
    let (after, changes) = crossed(Kind::Png, &png).unwrap();
    assert_eq!((after.to_rgba8(), changes.made_opaque), (some, false));
}

#[test]
fn sixteen_bits_of_brightness_stay_sixteen_bits() {
    let sample = include_bytes!("samples/png16-12bit-ct.png");
    let before = image::load_from_memory(sample).unwrap();
    let (after, _) = crossed(Kind::Png, sample).unwrap();
    assert_eq!(after.color(), before.color());
    assert_eq!(after.as_luma16(), before.as_luma16());
    let mut levels: Vec<u16> = after.to_luma16().iter().copied().collect();
    levels.sort_unstable();
    levels.dedup();
    assert!(levels.len() > 1000, "{} grey levels", levels.len());
    let mut tiff = Vec::new();
    before.write_to(&mut std::io::Cursor::new(&mut tiff), image::ImageFormat::Tiff).unwrap();
    let (after, _) = crossed(Kind::Tiff, &tiff).unwrap();
    assert_eq!(after.as_luma16(), before.as_luma16());
}

#[test]
fn colours_that_hold_their_share_of_transparency_become_what_they_are() {
    // Half transparent red, once with its share (associated alpha, 1) and once without (2), in each depth.
    // Where everything is transparent the colours were never shared out.
    for (extra, red, alpha) in [(1_u16, 0x80, 0x80), (2, 0xff, 0x80), (1, 0xff, 0)] {
        for bits in [8_u16, 16] {
            let width = usize::from(bits / 8);
            let pixel: Vec<u8> =
                [red, 0, 0, alpha].into_iter().flat_map(|sample: u8| vec![sample; width]).collect();
            let length = u32::try_from(pixel.len()).unwrap();
            let place = 8 + length;
            let mut tiff = [b"II*\0", &place.to_le_bytes()[..], &pixel].concat();
            let bits_at = place + 2 + 10 * 12 + 4;
            let tags: [(u16, u16, u32, u32); 10] = [
                (256, 3, 1, 1),
                (257, 3, 1, 1),
                (258, 3, 4, bits_at),
                (259, 3, 1, 1),
                (262, 3, 1, 2),
                (273, 4, 1, 8),
                (277, 3, 1, 4),
                (278, 3, 1, 1),
                (279, 4, 1, length),
                (338, 3, 1, extra.into()),
            ];
            tiff.extend(10_u16.to_le_bytes());
            for (tag, kind, count, value) in tags {
                tiff.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
                tiff.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
            }
            tiff.extend(0_u32.to_le_bytes());
            tiff.extend([bits.to_le_bytes(); 4].concat());
            let (after, _) = crossed(Kind::Tiff, &tiff).unwrap();
            let opacity = if alpha == 0 { 0xff } else { alpha };
            let expected = [0xff, 0, 0, opacity];
            assert_eq!(after.to_rgba8().get_pixel(0, 0).0, expected, "{extra}, {bits} bits");
        }
    }
}

#[test]
fn of_a_file_with_several_pages_the_first_crosses_and_that_is_said() {
    let sample = include_bytes!("samples/tiff-3pages.tif");
    let (_, changes) = crossed(Kind::Tiff, sample).unwrap();
    assert_eq!(changes.first_of, Some(3));
}

#[test]
fn a_picture_of_a_kind_that_is_not_decoded_is_not_called_damaged() {
    let samples: [(Kind, &[u8]); 4] = [
        (Kind::Jpeg, include_bytes!("samples/jpeg-12bit.jpg")),
        (Kind::Tiff, include_bytes!("samples/tiff-1bit-group3.tif")),
        (Kind::Tiff, include_bytes!("samples/tiff-palette.tif")),
        (Kind::Tiff, b"II\x2b\0\x08\0\0\0\x10\0\0\0\0\0\0\0"),
    ];
    for (number, (kind, sample)) in samples.into_iter().enumerate() {
        let problem = crossed(kind, sample).unwrap_err();
        assert_eq!(problem, Refused::UnknownKind, "{number}");
    }
}

#[test]
fn what_hangs_on_a_picture_stays_behind_whichever_way_it_goes() {
    let sample = include_bytes!("samples/out-meta.png");
    assert!(sample.windows(4).any(|bytes| bytes == b"HONG"));
    let after = encode_anew(Kind::Png, sample, 1 << 20).unwrap();
    assert!(!after.png.windows(4).any(|bytes| bytes == b"HONG"));
}

proptest::proptest! {
    #[test]
    fn any_bytes_behind_a_pictures_beginning_are_a_picture_or_none(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400),
        kind in 0u8..4,
        kept in 0usize..300,
    ) {
        let samples: [&[u8]; 4] = [
            include_bytes!("samples/png16-12bit-ct.png"),
            include_bytes!("samples/bmp32-v5-alphamask-but-alpha0.bmp"),
            include_bytes!("samples/jpeg-exif-orient6.jpg"),
            include_bytes!("samples/tiff-3pages.tif"),
        ];
        let sample = samples[usize::from(kind)];
        super::fuzz(&[&[kind][..], &sample[..kept.min(sample.len())], &bytes].concat());
    }
}
