use std::fs::File;

use nix::sys::memfd::{MFdFlags, memfd_create};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::testing::{DriverQueue, Recorder, activation, memory, readable, writable};

/// Where commands, their responses and pictures lie.
const COMMAND: u64 = 0x4_0000;
const RESPONSE: u64 = 0x6_0000;
const PIXELS: u64 = 0x10_0000;

const SCREEN: Size = Size { width: 32, height: 16 };

#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Picture(Option<Size>),
    Damage(Rect),
    Cursor(CursorChange),
}

#[derive(Clone, Default)]
struct Watcher(Arc<Mutex<Vec<Seen>>>);

impl Watcher {
    fn see(&self, seen: Seen) {
        self.0.lock().unwrap().push(seen);
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Viewer for Watcher {
    fn picture(&mut self, size: Option<Size>) {
        self.see(Seen::Picture(size));
    }
    fn damage(&mut self, rect: Rect) {
        self.see(Seen::Damage(rect));
    }
    fn cursor(&mut self, cursor: CursorChange) {
        self.see(Seen::Cursor(cursor));
    }
}

struct Bench {
    memory: GuestMemory,
    control: DriverQueue,
    cursor: DriverQueue,
    gpu: Gpu,
    handle: Handle,
    watcher: Watcher,
    recorder: Arc<Recorder>,
    screen: File,
}

fn frame_memory(size: Size) -> File {
    let fd = memfd_create("frame", MFdFlags::MFD_CLOEXEC).unwrap();
    let file = File::from(fd);
    file.set_len(size.frame_bytes() as u64).unwrap();
    file
}

impl Bench {
    fn new() -> Self {
        let memory = memory(0x40_0000);
        let watcher = Watcher::default();
        let (mut gpu, handle) = Gpu::new(Box::new(watcher.clone())).unwrap();
        let screen = frame_memory(SCREEN);
        handle.show_on(Frame::map(screen.try_clone().unwrap(), SCREEN).unwrap());
        gpu.take_screen();
        let control = DriverQueue::new(&memory, 0, 64);
        let cursor = DriverQueue::new(&memory, 1, 16);
        let (activation, recorder) = activation(&memory, &[&control, &cursor], spec::F_EDID);
        gpu.activate(activation).unwrap();
        Self { memory, control, cursor, gpu, handle, watcher, recorder, screen }
    }

    /// Sends a command, as its 32-bit fields, and returns the response.
    fn command(&mut self, kind: u32, fields: &[u32]) -> Vec<u8> {
        let header = [kind, 1, 7, 9, 3, 0];
        let raw: Vec<u8> = header.iter().chain(fields).flat_map(|f| f.to_le_bytes()).collect();
        self.memory.write_slice(&raw, GuestAddress(COMMAND)).unwrap();
        let len = u32::try_from(raw.len()).unwrap();
        self.control.offer(&[readable(COMMAND, len), writable(RESPONSE, 0x1000)]);
        self.gpu.queue_notified(0);
        let Some((_, len)) = self.control.used() else { return Vec::new() };
        let mut response = vec![0; len as usize];
        self.memory.read_slice(&mut response, GuestAddress(RESPONSE)).unwrap();
        response
    }

    fn kind(&mut self, kind: u32, fields: &[u32]) -> u32 {
        let response = self.command(kind, fields);
        u32::from_le_bytes(response[..4].try_into().unwrap())
    }

    fn ok(&mut self, kind: u32, fields: &[u32]) {
        assert_eq!(self.kind(kind, fields), response::OK_NODATA, "{kind:#x} {fields:?}");
    }

    /// Makes a resource with its backing in pages of 4 KiB that lie in the opposite order.
    fn picture(&mut self, id: u32, size: Size, fill: impl Fn(u32, u32) -> u32) {
        self.ok(spec::command::RESOURCE_CREATE_2D, &[id, 2, size.width, size.height]);
        let bytes = size.width * size.height * 4;
        let pages = bytes.div_ceil(4096);
        let mut fields = vec![id, pages];
        for page in (0..pages).rev() {
            let address = u32::try_from(PIXELS).unwrap() + page * 4096;
            fields.extend([address, 0, 4096, 0]);
        }
        self.ok(spec::command::RESOURCE_ATTACH_BACKING, &fields);
        for y in 0..size.height {
            for x in 0..size.width {
                let at = (y * size.width + x) * 4;
                let page = pages - 1 - at / 4096;
                let address = PIXELS + u64::from(page * 4096 + at % 4096);
                self.memory.write_obj(fill(x, y), GuestAddress(address)).unwrap();
            }
        }
    }

    fn pixel(&self, x: u32, y: u32) -> u32 {
        use std::os::unix::fs::FileExt;
        let mut raw = [0; 4];
        let at = u64::from((y * SCREEN.width + x) * 4);
        self.screen.read_exact_at(&mut raw, at).unwrap();
        u32::from_le_bytes(raw)
    }
}

#[test]
fn the_driver_learns_the_screens_size_and_its_edid() {
    let mut bench = Bench::new();
    let info = bench.command(spec::command::GET_DISPLAY_INFO, &[]);
    assert_eq!(info.len(), 408);
    let field = |at: usize| u32::from_le_bytes(info[at..at + 4].try_into().unwrap());
    assert_eq!((field(0), field(4), field(8)), (response::OK_DISPLAY_INFO, 1, 7), "fenced");
    assert_eq!((field(32), field(36), field(40)), (SCREEN.width, SCREEN.height, 1));
    let edid = bench.command(spec::command::GET_EDID, &[0, 0]);
    assert_eq!(edid.len(), 24 + 8 + 1024);
    let edid = &edid[32..32 + 128];
    assert_eq!(edid[..8], [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    assert_eq!(edid.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    assert_eq!(bench.kind(spec::command::GET_EDID, &[1, 0]), response::ERR_INVALID_SCANOUT_ID);
}

/// Returns the size an EDID's one preferred timing says, as Linux's `drm_edid` reads it.
fn preferred(edid: &[u8]) -> (u32, u32) {
    let zero_sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0;
    assert!(edid.chunks(128).all(zero_sum), "a block's checksum");
    assert_eq!(edid.len(), 128 * (1 + usize::from(edid[126])));
    let timings = edid[54..126].chunks(18).filter(|timing| (timing[0], timing[1]) != (0, 0));
    let timings: Vec<&[u8]> = timings.collect();
    let Some(section) = edid.chunks(128).nth(1) else {
        let [timing] = timings[..] else { panic!("{timings:?}") };
        let wide = u32::from(timing[2]) | u32::from(timing[4] >> 4) << 8;
        return (wide, u32::from(timing[5]) | u32::from(timing[7] >> 4) << 8);
    };
    assert!(timings.is_empty(), "the first timing of the base block would be preferred too");
    let section_bytes = usize::from(section[2]) + 5;
    assert_eq!(section[0], 0x70);
    assert!(section_bytes <= 126 && zero_sum(&section[1..1 + section_bytes]), "DisplayID's sum");
    assert_eq!(section[5..8], [3, 0, 20], "one timing of type I");
    assert_ne!(section[11] & 0x80, 0, "preferred");
    let field = |at: usize| u32::from(u16::from_le_bytes([section[at], section[at + 1]])) + 1;
    let clock = u32::from_le_bytes([section[8], section[9], section[10], 0]) + 1;
    let pixels = f64::from((field(12) + field(14)) * (field(20) + field(22)));
    let refresh = f64::from(clock) * 10_000.0 / pixels;
    assert!((refresh - 60.0).abs() < 0.1, "{refresh} pictures a second");
    (field(12), field(20))
}

#[test]
fn an_edid_says_the_size_it_was_made_for() {
    let large =
        [(4096, 2160), (4095, 4095), (5120, 1412), (7680, 4256), (4320, 8128), (8192, 4320)];
    for (width, height) in [(1, 1), (640, 480), (1920, 1052), (3840, 2132), (4095, 2160)] {
        let edid = edid::of(Size { width, height });
        assert_eq!((preferred(&edid), edid.len()), ((width, height), 128));
    }
    for (width, height) in large {
        assert!(Size { width, height }.is_screen());
        let edid = edid::of(Size { width, height });
        assert_eq!((preferred(&edid), edid.len()), ((width, height), 256));
    }
}

#[test]
fn a_flushed_rectangle_is_copied_and_nothing_else() {
    let mut bench = Bench::new();
    let black = |_, _| 0;
    bench.picture(1, SCREEN, black);
    bench.ok(spec::command::SET_SCANOUT, &[0, 0, 32, 16, 0, 1]);
    let whole = Rect::all(SCREEN);
    assert_eq!(bench.watcher.seen(), [Seen::Picture(Some(SCREEN)), Seen::Damage(whole)]);
    for y in 0..16 {
        for x in 0..32 {
            let at = u64::from((y * 32 + x) * 4u32);
            bench.memory.write_obj(0xff00_0000 | y << 8 | x, GuestAddress(PIXELS + at)).unwrap();
        }
    }
    bench.ok(spec::command::TRANSFER_TO_HOST_2D, &[3, 2, 5, 4, (2 * 32 + 3) * 4, 0, 1, 0]);
    assert_eq!(bench.pixel(3, 2), 0, "a transfer alone moves nothing");
    bench.ok(spec::command::RESOURCE_FLUSH, &[3, 2, 5, 4, 1, 0]);
    let rect = Rect { x: 3, y: 2, width: 5, height: 4 };
    assert_eq!(bench.watcher.seen(), [Seen::Damage(rect)]);
    for y in 0..16 {
        for x in 0..32 {
            let inside = (3..8).contains(&x) && (2..6).contains(&y);
            let wanted = if inside { 0xff00_0000 | y << 8 | x } else { 0 };
            assert_eq!(bench.pixel(x, y), wanted, "at {x},{y}");
        }
    }
}

#[test]
fn a_picture_in_scattered_pages_larger_than_the_screen_is_cut() {
    let mut bench = Bench::new();
    let size = Size { width: 64, height: 40 };
    bench.picture(1, size, |x, y| y << 8 | x);
    bench.ok(spec::command::SET_SCANOUT, &[0, 0, 64, 40, 0, 1]);
    assert_eq!(bench.watcher.seen()[0], Seen::Picture(Some(size)));
    assert_eq!((bench.pixel(0, 0), bench.pixel(31, 15)), (0, 15 << 8 | 31));
    bench.ok(spec::command::RESOURCE_FLUSH, &[40, 0, 24, 40, 1, 0]);
    assert_eq!(bench.watcher.seen(), [], "what no one sees is no damage");
    // The part of a picture that begins further down and right.
    bench.ok(spec::command::SET_SCANOUT, &[10, 4, 20, 10, 0, 1]);
    assert_eq!(bench.pixel(0, 0), 4 << 8 | 10);
    assert_eq!(bench.pixel(19, 9), 13 << 8 | 29);
    assert_eq!(bench.pixel(20, 9), 0, "beside a smaller picture it is black");
}

#[test]
fn a_flip_between_pictures_of_one_size_copies_only_what_is_flushed() {
    let mut bench = Bench::new();
    bench.picture(1, SCREEN, |_, _| 1);
    bench.ok(spec::command::SET_SCANOUT, &[0, 0, 32, 16, 0, 1]);
    bench.ok(spec::command::RESOURCE_CREATE_2D, &[2, 2, 32, 16]);
    bench.ok(spec::command::RESOURCE_ATTACH_BACKING, &[2, 1, 0x20_0000, 0, 2048, 0]);
    bench.memory.write_slice(&[2; 2048], GuestAddress(0x20_0000)).unwrap();
    bench.watcher.seen();
    bench.ok(spec::command::SET_SCANOUT, &[0, 0, 32, 16, 0, 2]);
    assert_eq!((bench.watcher.seen(), bench.pixel(0, 0)), (vec![], 1));
    bench.ok(spec::command::RESOURCE_FLUSH, &[0, 0, 32, 16, 2, 0]);
    assert_eq!(bench.pixel(0, 0), 0x0202_0202);
    bench.ok(spec::command::RESOURCE_UNREF, &[2, 0]);
    assert_eq!(bench.watcher.seen().last(), Some(&Seen::Picture(None)));
}

#[test]
fn numbers_that_cannot_be_are_refused_by_name() {
    use spec::command::*;
    let mut bench = Bench::new();
    bench.picture(1, SCREEN, |_, _| 0);
    let max = u32::MAX;
    for (kind, fields, wanted) in [
        (RESOURCE_CREATE_2D, vec![0, 2, 8, 8], response::ERR_INVALID_RESOURCE_ID),
        (RESOURCE_CREATE_2D, vec![1, 2, 8, 8], response::ERR_INVALID_RESOURCE_ID),
        (RESOURCE_CREATE_2D, vec![2, 3, 8, 8], response::ERR_INVALID_PARAMETER),
        (RESOURCE_CREATE_2D, vec![2, 2, max, max], response::ERR_INVALID_PARAMETER),
        (RESOURCE_CREATE_2D, vec![2, 2, 8, 0], response::ERR_INVALID_PARAMETER),
        (RESOURCE_UNREF, vec![9, 0], response::ERR_INVALID_RESOURCE_ID),
        (SET_SCANOUT, vec![0, 0, 8, 8, 1, 1], response::ERR_INVALID_SCANOUT_ID),
        (SET_SCANOUT, vec![max, 0, 8, 8, 0, 1], response::ERR_INVALID_PARAMETER),
        (SET_SCANOUT, vec![0, 0, 0, 8, 0, 1], response::ERR_INVALID_PARAMETER),
        (RESOURCE_FLUSH, vec![0, max, 1, 1, 1, 0], response::ERR_INVALID_PARAMETER),
        (RESOURCE_FLUSH, vec![0, 0, 33, 16, 1, 0], response::ERR_INVALID_PARAMETER),
        (TRANSFER_TO_HOST_2D, vec![0, 0, 1, 1, 4, 0, 1, 0], response::ERR_INVALID_PARAMETER),
        (TRANSFER_TO_HOST_2D, vec![0, 0, 1, 1, 0, max, 1, 0], response::ERR_INVALID_PARAMETER),
        (RESOURCE_ATTACH_BACKING, vec![1, 0], response::ERR_INVALID_RESOURCE_ID),
        (RESOURCE_ATTACH_BACKING, vec![9, 0], response::ERR_INVALID_RESOURCE_ID),
        (RESOURCE_ATTACH_BACKING, vec![1, max], response::ERR_OUT_OF_MEMORY),
        (RESOURCE_DETACH_BACKING, vec![9, 0], response::ERR_INVALID_RESOURCE_ID),
        (UPDATE_CURSOR, vec![0, 0, 0, 0, 1, 0, 0, 0], response::ERR_INVALID_PARAMETER),
        (0x0108, vec![0, 0], response::ERR_INVALID_PARAMETER),
        (0xffff, vec![], response::ERR_INVALID_PARAMETER),
    ] {
        assert_eq!(bench.kind(kind, &fields), wanted, "{kind:#x} {fields:?}");
    }
    bench.ok(RESOURCE_DETACH_BACKING, &[1, 0]);
    let outside = [1, 1, 0xffff_f000, max, 4096, 0];
    assert_eq!(bench.kind(RESOURCE_ATTACH_BACKING, &outside), response::ERR_INVALID_PARAMETER);
    assert!(!bench.recorder.asked_for_reset());
}

#[test]
fn resources_and_their_memory_have_a_limit() {
    let mut bench = Bench::new();
    let create =
        |bench: &mut Bench, id| bench.kind(spec::command::RESOURCE_CREATE_2D, &[id, 2, 8, 8]);
    let max = u32::try_from(resource::RESOURCES_MAX).unwrap();
    for id in 1..=max {
        assert_eq!(create(&mut bench, id), response::OK_NODATA);
    }
    assert_eq!(create(&mut bench, max + 1), response::ERR_OUT_OF_MEMORY);
    bench.ok(spec::command::RESOURCE_UNREF, &[5, 0]);
    assert_eq!(create(&mut bench, max + 1), response::OK_NODATA);
}

#[test]
fn another_screen_is_told_to_the_driver_and_shows_the_picture_at_once() {
    let mut bench = Bench::new();
    bench.picture(1, SCREEN, |_, _| 0x55);
    bench.ok(spec::command::SET_SCANOUT, &[0, 0, 32, 16, 0, 1]);
    bench.watcher.seen();
    let size = Size { width: 40, height: 20 };
    let file = frame_memory(size);
    bench.handle.show_on(Frame::map(file.try_clone().unwrap(), size).unwrap());
    bench.gpu.take_screen();
    assert_eq!(bench.recorder.config_changes(), 1);
    let mut events = [0; 4];
    bench.gpu.config().read(0, &mut events);
    assert_eq!(events, [1, 0, 0, 0]);
    bench.gpu.config().write(4, &[1, 0, 0, 0]);
    bench.gpu.config().read(0, &mut events);
    assert_eq!(events, [0; 4]);
    assert_eq!(bench.watcher.seen()[0], Seen::Picture(Some(SCREEN)));
    use std::os::unix::fs::FileExt;
    let mut raw = [0; 4];
    file.read_exact_at(&mut raw, (19 * 40 + 39) * 4).unwrap();
    assert_eq!(raw, [0; 4]);
    file.read_exact_at(&mut raw, (15 * 40 + 31) * 4).unwrap();
    assert_eq!(raw, [0x55, 0, 0, 0]);
}

#[test]
fn frame_memory_that_is_too_small_is_not_mapped() {
    let file = frame_memory(Size { width: 8, height: 8 });
    assert!(Frame::map(file.try_clone().unwrap(), SCREEN).is_err());
    assert!(Frame::map(file, Size { width: 0, height: 8 }).is_err());
}

#[test]
fn the_cursors_picture_goes_to_the_viewer_and_hides_again() {
    let mut bench = Bench::new();
    bench.picture(7, Size { width: 64, height: 64 }, |x, y| y << 8 | x);
    let update = |bench: &mut Bench, resource: u32, hot: u32| {
        let fields =
            [spec::command::UPDATE_CURSOR, 0, 0, 0, 0, 0, 0, 9, 9, 0, resource, hot, hot, 0];
        let raw: Vec<u8> = fields.iter().flat_map(|f| f.to_le_bytes()).collect();
        bench.memory.write_slice(&raw, GuestAddress(COMMAND)).unwrap();
        bench.cursor.offer(&[readable(COMMAND, 56)]);
        bench.gpu.queue_notified(1);
        assert!(bench.cursor.used().is_some());
        bench.watcher.seen()
    };
    let seen = update(&mut bench, 7, 1000);
    let [Seen::Cursor(CursorChange::Shown(cursor))] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((cursor.hot_x, cursor.hot_y), (63, 63));
    assert_eq!(cursor.pixels[(5 * 64 + 3) * 4..][..4], [3, 5, 0, 0]);
    assert_eq!(update(&mut bench, 0, 0), [Seen::Cursor(CursorChange::Hidden)]);
    assert_eq!(update(&mut bench, 99, 0), []);
}

#[test]
fn a_reset_forgets_everything_and_the_viewer_sees_no_picture() {
    let mut bench = Bench::new();
    bench.picture(1, SCREEN, |_, _| 0);
    bench.ok(spec::command::SET_SCANOUT, &[0, 0, 32, 16, 0, 1]);
    bench.watcher.seen();
    bench.gpu.reset();
    assert_eq!(bench.watcher.seen(), [Seen::Picture(None), Seen::Cursor(CursorChange::Hidden)]);
}

#[test]
fn a_command_cut_short_stops_the_device() {
    let mut bench = Bench::new();
    bench.control.offer(&[readable(COMMAND, 10), writable(RESPONSE, 64)]);
    bench.gpu.queue_notified(0);
    assert!(bench.recorder.asked_for_reset());
}

proptest! {
    #[test]
    fn any_command_gets_an_answer_and_what_it_draws_stays_on_the_screen(
        commands in prop::collection::vec(
            (prop::sample::select(vec![0x100u32, 0x101, 0x102, 0x103, 0x104, 0x105, 0x106, 0x107, 0x10a, 0x300, 0x301]),
             prop::collection::vec(prop_oneof![0u32..4, 0u32..80, any::<u32>(), Just(0x10_0000u32)], 14)),
            1..40)
    ) {
        let mut bench = Bench::new();
        bench.ok(spec::command::RESOURCE_CREATE_2D, &[1, 2, 64, 64]);
        for (kind, fields) in commands {
            bench.command(kind, &fields);
            if bench.recorder.asked_for_reset() {
                break;
            }
            for seen in bench.watcher.seen() {
                if let Seen::Damage(rect) = seen {
                    prop_assert_eq!(rect.within(SCREEN), rect);
                }
            }
        }
    }
}
