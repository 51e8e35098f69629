package store

import (
	"context"
	"log/slog"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver"
)

// bounds of the embedded member's file. etcd frees what is overwritten within
// the file, some minutes later; only a defragmentation makes the file smaller,
// and the quota is on the file.
type bounds struct {
	quota int64         // bytes; past it only deletes succeed
	free  int64         // so much free, and half of the file, is worth a defragmentation
	quiet time.Duration // without a write before one
	every time.Duration // between two looks
}

var usualBounds = bounds{quota: 2 << 30, free: 64 << 20, quiet: 30 * time.Second, every: time.Minute}

// tight is when little of the quota is left: there is a warning each hour, and
// defragmentation waits for no quiet.
func (b bounds) tight(size int64) bool { return size > b.quota/10*8 }

// due says whether to defragment a file of so many bytes. It makes requests
// wait as long as copying what is in use takes, a second per 200 MB or so.
func (b bounds) due(size, used int64, quiet time.Duration) bool {
	free := size - used
	return free >= b.free && 2*free >= size && (quiet >= b.quiet || b.tight(size))
}

// tend keeps the member's file small until ctx ends, and lets it take writes
// again when there is room after it was full.
func (e *etcd) tend(ctx context.Context, server *etcdserver.EtcdServer, b bounds) {
	var warned, tried time.Time
	for pause(ctx, b.every) == nil {
		file := server.Backend()
		size := file.Size()
		due := b.due(size, file.SizeInUse(), time.Since(time.Unix(0, e.written.Load())))
		// Of a full file it is not known what is in use: only writes count that anew.
		if due || len(server.Alarms()) > 0 && time.Since(tried) > 10*b.every {
			began := time.Now()
			tried = began
			if err := server.Defragment(); err != nil {
				e.log.Error("the store's file could not be made smaller", "err", err)
			} else {
				e.log.Info("the store's file was made smaller", "from", size, "to", file.Size(), "took", time.Since(began))
			}
		}
		size = file.Size()
		if b.tight(size) && time.Since(warned) > time.Hour {
			warned = time.Now()
			e.log.Warn("the store is nearly full: delete apps that are not needed",
				slog.Int64("bytes", size), slog.Int64("in_use", file.SizeInUse()), slog.Int64("quota", b.quota))
		}
		if !b.tight(size) {
			e.reopen(ctx, server)
		}
	}
}

// reopen ends the state in which a member that was full refuses writes.
func (e *etcd) reopen(ctx context.Context, server *etcdserver.EtcdServer) {
	for _, alarm := range server.Alarms() {
		if alarm.Alarm != pb.AlarmType_NOSPACE {
			continue
		}
		_, err := server.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: alarm.MemberID, Alarm: alarm.Alarm})
		if err != nil {
			e.log.Error("the store has room again, but still refuses writes", "err", err)
			return
		}
		e.log.Info("the store has room again")
	}
}
