package isolation

import (
	"context"
	"errors"
	"net/netip"
	"os"
)

type Host struct{}
type Box struct{}

var errSkel = errors.New("being written")

func Open(cfg Config) (*Host, error)                               { return nil, errSkel }
func (h *Host) Start(ctx context.Context, spec Spec) (*Box, error) { return nil, errSkel }
func (h *Host) Boxes() ([]*Box, error)                             { return nil, errSkel }
func (h *Host) Close() error                                       { return nil }
func (h *Host) Teardown() error                                    { return nil }
func (b *Box) Run() string                                         { return "" }
func (b *Box) Addr() netip.Addr                                    { return netip.Addr{} }
func (b *Box) Dir() string                                         { return "" }
func (b *Box) LogDir() string                                      { return "" }
func (b *Box) Stop() error                                         { return nil }
func (b *Box) Kill() error                                         { return nil }
func (b *Box) Done() <-chan struct{}                               { return nil }
func (b *Box) Exit() (Exit, error)                                 { return Exit{}, nil }
func (b *Box) Listening(port int) (bool, error)                    { return false, nil }
func (b *Box) Scratch() (*os.File, error)                          { return nil, nil }
func (b *Box) Remove() error                                       { return nil }
