"""The program that stands inside a sandbox, forks once per execution and reports how it ended.

It is sent as ``python -I -c SOURCE CONFIG`` so that it needs no mount and no particular image, and therefore
imports the standard library only. It speaks first to nobody: the host sends one request, it sends one reply.

The wire format is two fixed structs, each followed by raw bytes. Requests carry programs, arguments, file names
and inputs, but the runner never holds those: it splices them from the channel into memory files that only the
forked child reads. So nothing of one execution is left in the memory that the next one is forked from, and the
runner parses nothing hostile. The child drops to the program's user, closes everything but its three streams,
and is killed together with all it started as soon as its main process ends or the deadline passes.
"""

import atexit
import errno
import gc
import json
import linecache
import os
import resource
import select
import signal
import stat
import struct
import sys
import time
import traceback
import types

REQUEST = struct.Struct("<BdQQQ")
"""Operation, deadline in seconds, kept bytes per output stream, bytes of body, bytes of standard input."""
REPLY = struct.Struct("<iIdQQ")
"""Wait status of the main process, flags, seconds of run time, bytes written to each stream."""

PYTHON, EXEC, PUT, GET, OPEN, WIPE = 1, 2, 3, 4, 5, 6
TIMED_OUT, OOM, PIDS, DISK, UNCLEAN = 1, 2, 4, 8, 16

MAX_BODY_BYTES = 32 * 2**20
"""Most bytes of body and standard input together."""
FLOOD = 8
"""A program that has written this many times its cap is ended."""
SETTLE_SECONDS = 2.0
"""How long killed processes may take to disappear before the sandbox counts as unclean."""
IDLE_SECONDS = 3600.0
"""Life without an owner's request between two episodes."""
ENTRY = struct.Struct("<HQ")
"""One file of a PUT: bytes of its name, bytes of its content; both follow."""


class Stream:
    """The head and the tail of one output stream in a buffer of fixed size."""

    def __init__(self, descriptor, cap):
        self.descriptor = descriptor
        self.cap = cap
        self.head = cap - cap // 2
        self.total = 0
        self.memory = bytearray(cap)
        self.view = memoryview(self.memory)

    def absorb(self):
        """Take what the pipe holds; False at its end or when it holds nothing."""
        if self.total < self.head:
            room = self.view[self.total : self.head]
        else:
            tail = self.cap - self.head
            at = self.head + (self.total - self.head) % tail if tail else 0
            room = self.view[at:] if tail else memoryview(bytearray(1))
        try:
            count = os.readv(self.descriptor, [room[:65536]])
        except BlockingIOError:
            return False
        self.total += count
        return count > 0

    def parts(self):
        """The kept bytes in order: head, then the tail unrolled."""
        if self.total <= self.cap:
            return [self.view[: self.total]]
        tail = self.cap - self.head
        at = self.head + (self.total - self.head) % tail if tail else self.head
        return [self.view[: self.head], self.view[at:], self.view[self.head : at]]

    def forget(self):
        """Overwrite the buffer: the next execution is forked from this memory."""
        used = min(self.total, self.cap)
        self.view[:used] = bytes(used)
        os.close(self.descriptor)


class Runner:
    """Serves requests; returns only in a forked child, with what that child has to do."""

    def __init__(self, config):
        self.config = config
        self.source = os.dup(0)
        self.sink = os.dup(1)
        os.set_inheritable(self.source, False)
        os.set_inheritable(self.sink, False)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.close(null)
        if config["uid"] is None:
            hide()
        else:
            for folder in config["folders"]:
                # Sticky and root's own: the program can fill it, but leave no mark on the folder itself.
                os.chmod(folder, 0o1777)
        self.between = os.pipe()
        self.expires = time.monotonic() + IDLE_SECONDS
        gc.collect()
        gc.freeze()

    def serve(self):
        """Answer requests until the channel ends or time is up, which ends the process."""
        while True:
            operation, wall, cap, body_size, stdin_size = REQUEST.unpack(self.receive(REQUEST.size))
            body = self.keep("body", body_size)
            stdin = self.keep("stdin", stdin_size)
            if operation == OPEN:
                self.expires = time.monotonic() + wall
                os.write(self.sink, REPLY.pack(0, 0, 0.0, 0, 0))
            elif operation == WIPE:
                if self.wipe() is not None:
                    return WIPE, -1
            elif (child := self.execute(operation, wall, cap, body, stdin)) is not None:
                return child
            os.close(body)
            os.close(stdin)

    def receive(self, size):
        data = b""
        while len(data) < size:
            ready = select.select([self.source], [], [], max(0.0, self.expires - time.monotonic()))[0]
            part = os.read(self.source, size - len(data)) if ready else b""
            if not part:
                os._exit(0)
            data += part
        return data

    def keep(self, name, size):
        """Move ``size`` bytes from the channel into a memory file without holding them here."""
        memory = os.memfd_create(name, os.MFD_CLOEXEC)
        left = size
        while left:
            moved = os.splice(self.source, self.between[1], min(left, 65536))
            if not moved:
                os._exit(0)
            left -= moved
            while moved:
                moved -= os.splice(self.between[0], memory, moved)
        os.lseek(memory, 0, os.SEEK_SET)
        return memory

    def execute(self, operation, wall, cap, body, stdin):
        """Fork the child and watch it. None in the runner; in the child, what to do."""
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        before = self.counters()
        started = time.monotonic()
        child = os.fork()
        if not child:
            enter(self.config, {0: stdin, 1: out_write, 2: err_write}, body)
            return operation, 3
        os.close(out_write)
        os.close(err_write)
        streams = [Stream(out_read, cap), Stream(err_read, cap)]
        end = min(started + wall, self.expires)
        timed_out = self.watch(child, streams, end)
        seconds = time.monotonic() - started
        full = self.disk_is_full()
        kill_everything()
        code = os.waitpid(child, 0)[1]
        for stream in streams:
            while stream.absorb() and stream.total <= 2 * FLOOD * cap:
                pass
        after = self.counters()
        flags = (TIMED_OUT if timed_out else 0) | (DISK if full else 0)
        flags |= OOM if after[0] > before[0] else 0
        flags |= PIDS if after[1] > before[1] else 0
        flags |= 0 if self.alone() else UNCLEAN
        self.reply(code, flags, seconds, streams)
        return None

    def watch(self, child, streams, end):
        """Drain the streams until the main process ends; True if the deadline came first."""
        poller = select.poll()
        by_descriptor = {stream.descriptor: stream for stream in streams}
        for descriptor in by_descriptor:
            os.set_blocking(descriptor, False)
            poller.register(descriptor, select.POLLIN)
        handle = os.pidfd_open(child)
        poller.register(handle, select.POLLIN)
        poller.register(self.source, 0)
        try:
            while True:
                left = end - time.monotonic()
                if left <= 0:
                    return True
                for descriptor, _ in poller.poll(left * 1000 + 1):
                    if descriptor == handle:
                        return False
                    if descriptor == self.source:
                        os._exit(0)
                    stream = by_descriptor[descriptor]
                    if not stream.absorb():
                        poller.unregister(descriptor)
                    if stream.total > FLOOD * stream.cap:
                        return False
        finally:
            os.close(handle)

    def reply(self, code, flags, seconds, streams):
        totals = [stream.total for stream in streams]
        pieces = [memoryview(REPLY.pack(code, flags, seconds, *totals))]
        for stream in streams:
            pieces += stream.parts()
        for piece in pieces:
            while piece:
                piece = piece[os.write(self.sink, piece) :]
        for stream in streams:
            stream.forget()

    def counters(self):
        """Kernel counts of out-of-memory kills and refused forks; the program cannot write them."""
        places = self.config["counters"]
        return [sum(counter(*place) for place in places[kind]) for kind in ("oom", "pids")]

    def disk_is_full(self):
        for folder in self.config["folders"]:
            room = os.statvfs(folder)
            if room.f_blocks and (room.f_bavail == 0 or room.f_favail == 0):
                return True
        return False

    def alone(self):
        """Wait until no process is left but this one and the init; False if some stay."""
        allowed = {"1", str(os.getpid())}
        pause = 0.0001
        end = time.monotonic() + SETTLE_SECONDS
        while True:
            reap()
            if not [name for name in os.listdir("/proc") if name.isdigit() and name not in allowed]:
                return True
            if time.monotonic() > end:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
            kill_everything()

    def wipe(self):
        """Empty every writable folder as the program's user, then verify; WIPE in the child."""
        kill_everything()
        self.alone()
        child = os.fork()
        if not child:
            null = os.open(os.devnull, os.O_RDWR)
            enter(self.config, {0: null, 1: null, 2: null}, null)
            return WIPE
        handle = os.pidfd_open(child)
        if not select.select([handle], [], [], SETTLE_SECONDS)[0]:
            os.kill(child, signal.SIGKILL)
        os.close(handle)
        os.waitpid(child, 0)
        for folder in self.config["folders"]:
            os.utime(folder, (0, 0))
        clean = self.alone() and traces(self.config) == []
        self.expires = time.monotonic() + IDLE_SECONDS
        os.write(self.sink, REPLY.pack(0, 0 if clean else UNCLEAN, 0.0, 0, 0))
        return None


def hide():
    """Let no process of the same user trace this one or open its files; being process 1 it takes no signals."""
    import ctypes

    if ctypes.CDLL(None).prctl(4, 0, 0, 0, 0):  # PR_SET_DUMPABLE
        raise OSError("prctl refused")


def counter(path, field):
    try:
        with open(path) as lines:
            for line in lines:
                name, _, value = line.partition(" ")
                if name == field:
                    return int(value)
    except FileNotFoundError:
        pass
    return 0


def kill_everything():
    """Kill every process of this process namespace except the init and the runner, atomically."""
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def traces(config):
    """What an episode left behind that the next one could find."""
    found = [name for folder in config["folders"] for name in os.listdir(folder)]
    for table in config["tables"]:
        try:
            with open(table) as lines:
                found += list(lines)[1:]
        except FileNotFoundError:
            pass
    return found


def enter(config, streams, body):
    """Become the program's process: own session, three streams, the body as 3, limits, no rights."""
    os.setsid()
    spare = {target: os.dup(descriptor) for target, descriptor in streams.items()}
    body = os.dup(body)
    for target, descriptor in spare.items():
        os.dup2(descriptor, target)
    os.dup2(body, 3)
    os.closerange(4, 4096)
    try:
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
    except PermissionError:
        pass
    for name, value in config["rlimits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    if config["uid"] is not None:
        os.setgroups([])
        os.setresgid(config["uid"], config["uid"], config["uid"])
        os.setresuid(config["uid"], config["uid"], config["uid"])
    os.umask(0o022)
    os.chdir(config["work"])


def take(descriptor):
    with open(descriptor, "rb", buffering=0) as memory:
        return memory.read()


def run_python(source):
    """Run ``source`` as a fresh ``__main__``, with the traceback CPython would print."""
    name = "main.py"
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    sys.argv = [""]
    sys.orig_argv = [sys.executable, ""]
    sys.path.insert(0, "")
    code = 0
    try:
        text = source.decode("utf-8", "replace")
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        sys.excepthook = show
        exec(compile(source, name, "exec", dont_inherit=True), main.__dict__)  # noqa: S102 - what it is for
    except SystemExit as request:
        code = exit_code(request.code)
    except BaseException as error:
        trace = error.__traceback__.tb_next if error.__traceback__ else None
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        code = 1
    del main
    leave(code)


def exit_code(asked):
    if asked is None:
        return 0
    if isinstance(asked, int):
        return asked & 0xFF
    print(asked, file=sys.stderr)
    return 1


def leave(code):
    """End as CPython does, except that modules are not torn down: that would copy every page of the runner."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    flushed = flush()
    del sys.modules["__main__"]
    gc.collect()
    os._exit(code if flush() and flushed else code or 120)


def flush():
    """Flush the program's streams; False when that fails, which CPython reports as exit code 120."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except Exception:
        return False
    return True


def show(kind, error, trace):
    traceback.print_exception(kind, error, trace)


def run_argv(joined):
    """Replace this process by the command; 127 when there is none, as a shell does."""
    arguments = joined.split(b"\0")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(arguments[0], arguments)
    except OSError as error:
        os.write(2, b"%s: %s\n" % (arguments[0], os.strerror(error.errno).encode()))
        os._exit(127 if error.errno == errno.ENOENT else 126)


def descend(parts, create):
    """Open the folder of a path part by part, following no link."""
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    for part in parts:
        if create:
            try:
                os.mkdir(part, 0o755, dir_fd=folder)
            except FileExistsError:
                pass
        below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        os.close(folder)
        folder = below
    return folder


def put(body):
    """Write files; whatever stood at their names is replaced, links are not followed."""
    at = 0
    while at < len(body):
        name_size, size = ENTRY.unpack_from(body, at)
        at += ENTRY.size
        *parents, name = body[at : at + name_size].split(b"/")
        at += name_size
        folder = descend(parents, create=True)
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
        content = memoryview(body)[at : at + size]
        while content:
            content = content[os.write(target, content) :]
        os.close(target)
        os.close(folder)
        at += size


def get(body):
    """Send one regular file that has one name and is not larger than asked for."""
    limit, *parts = body.split(b"/")
    folder = descend(parts[:-1], create=False)
    target = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    about = os.fstat(target)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
        raise OSError(errno.ELOOP, "not a plain file")
    if about.st_size > int(limit):
        raise OSError(errno.EFBIG, "too large")
    while part := os.read(target, 65536):
        while part:
            part = part[os.write(1, part) :]


def empty(folder):
    """Remove all that a folder holds. Subfolders move to the top first, so depth costs nothing."""
    serial = 0
    while names := os.listdir(folder):
        for name in names:
            path = os.path.join(folder, name)
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                os.unlink(path)
                continue
            os.chmod(path, 0o700)
            for below in os.scandir(path):
                if below.is_dir(follow_symlinks=False):
                    os.chmod(below.path, 0o700)
                    serial += 1
                    os.rename(below.path, os.path.join(folder, f".envgym-{os.getpid()}-{serial}"))
                else:
                    os.unlink(below.path)
            os.rmdir(path)


def answer(action, *arguments):
    """Run a file operation and turn its outcome into an exit code: 0, or the errno."""
    try:
        action(*arguments)
    except OSError as error:
        os._exit(error.errno or errno.EIO)
    os._exit(0)


def main():
    config = json.loads(sys.argv[1])
    operation, body = Runner(config).serve()
    if operation == PYTHON:
        run_python(take(body))
    elif operation == EXEC:
        run_argv(take(body))
    elif operation == PUT:
        answer(put, take(body))
    elif operation == GET:
        answer(get, take(body))
    else:
        for folder in config["folders"]:
            empty(folder)
        os._exit(0)


if __name__ == "__main__":
    main()
