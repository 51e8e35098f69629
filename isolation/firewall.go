package isolation

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"manifold"
)

// FirstPort and LastPort bound the $PORT of a dyno: the firewall lets the
// host's routers reach these TCP ports of a dyno and no others.
const (
	FirstPort = 20_000
	LastPort  = 59_999
)

// What one dyno may have in the host's connection tracking table, which all
// dynos and the host share (nf_conntrack_max, 262,144 on most hosts). The
// kernel keeps a closed connection for two more minutes, so a dyno that does
// its worst holds maxConnections + 120 × newConnections entries.
const (
	maxConnections = 4096 // open at once; closing ones are not counted
	newConnections = 100  // a second, in the long run
	newBurst       = 1000 // at once
)

// The firewall is one table named after the instance, made anew in one
// transaction whenever the agent starts. It knows dynos by the names of their
// links and the pool, never one by one, so starting a dyno does not touch it.
// A rule speaks of one dyno where the kernel keeps state by source address:
//
//	forward      from a dyno                        → egress
//	             to a dyno                          accept answers, drop the rest
//	egress       IPv6; source not in the pool       drop (rp_filter holds it to its own)
//	             to a resolver, port 53             → limits
//	             to the pool; link-local; metadata  drop
//	             all else                           → limits
//	input        from a dyno to a resolver, port 53 → limits
//	             from a dyno                        accept answers, drop the rest
//	output       to a dyno                          accept answers and $PORT, drop the rest
//	limits       answers                            accept
//	             too many new or open connections   drop
//	postrouting  pool → beyond the links            masquerade
//
// What is not told here is accepted: other packets are none of our business.
func (cfg Config) applyFirewall() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	if _, err := cfg.ruleset(c); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("load firewall table %s: %w", cfg.Instance, err)
	}
	return nil
}

// ruleset puts the table together on c; a Flush loads it.
func (cfg Config) ruleset(c *nftables.Conn) (*ruleset, error) {
	t := &ruleset{cfg: cfg, c: c, table: &nftables.Table{Name: cfg.Instance, Family: nftables.TableFamilyINet}, rules: map[string]int{}}
	c.AddTable(t.table) // so that the delete finds one
	c.DelTable(t.table)
	c.AddTable(t.table)
	limits, err := t.limits()
	if err != nil {
		return nil, fmt.Errorf("make firewall sets: %w", err)
	}
	egress := t.egress(limits)
	from, to := t.link(expr.MetaKeyIIFNAME, expr.CmpOpEq), t.link(expr.MetaKeyOIFNAME, expr.CmpOpEq)

	forward := t.hook("forward", nftables.ChainHookForward)
	t.rule(forward, from, jump(egress))
	t.rule(forward, to, answers(), accept)
	t.rule(forward, to, drop)

	input := t.hook("input", nftables.ChainHookInput)
	for _, dns := range t.resolvers() {
		t.rule(input, from, t.source(expr.CmpOpEq), dns, jump(limits))
	}
	t.rule(input, from, answers(), accept)
	t.rule(input, from, drop)

	output := t.hook("output", nftables.ChainHookOutput)
	t.rule(output, to, answers(), accept)
	t.rule(output, to, family(unix.NFPROTO_IPV4), ports(unix.IPPROTO_TCP, FirstPort, LastPort), accept)
	t.rule(output, to, drop)

	nat := c.AddChain(&nftables.Chain{Name: "postrouting", Table: t.table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	t.rule(nat, t.source(expr.CmpOpEq), t.link(expr.MetaKeyOIFNAME, expr.CmpOpNeq), []expr.Any{&expr.Masq{}})
	return t, nil
}

// removeFirewall removes our table, if there is one.
func (cfg Config) removeFirewall() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	c.DelTable(&nftables.Table{Name: cfg.Instance, Family: nftables.TableFamilyINet})
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove firewall table %s: %w", cfg.Instance, err)
	}
	return nil
}

// ruleset is the table while it is put together.
type ruleset struct {
	cfg   Config
	c     *nftables.Conn
	table *nftables.Table
	rules map[string]int // chain → how many it has
}

func (t *ruleset) hook(name string, hook *nftables.ChainHook) *nftables.Chain {
	return t.c.AddChain(&nftables.Chain{Name: name, Table: t.table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter})
}

// chain adds a chain that only jumps lead to.
func (t *ruleset) chain(name string) *nftables.Chain {
	return t.c.AddChain(&nftables.Chain{Name: name, Table: t.table})
}

func (t *ruleset) rule(chain *nftables.Chain, parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	t.rules[chain.Name]++
	t.c.AddRule(&nftables.Rule{Table: t.table, Chain: chain, Exprs: all})
}

// limits makes the chain that ends in accept for what a dyno may send on.
func (t *ruleset) limits() (*nftables.Chain, error) {
	limits := t.chain("limits")
	t.rule(limits, answers(), accept)
	for _, l := range []struct {
		name  string
		state expr.Any
	}{
		{"newcomers", &expr.Limit{Type: expr.LimitTypePkts, Rate: newConnections, Unit: expr.LimitTimeSecond, Burst: newBurst, Over: true}},
		{"connections", &expr.Connlimit{Count: maxConnections, Flags: expr.NFT_CONNLIMIT_F_INV}},
	} {
		// One element per dyno, made by its first packet.
		set := &nftables.Set{Table: t.table, Name: l.name, KeyType: nftables.TypeIPAddr, Dynamic: true, Size: uint32(t.cfg.slots())}
		if err := t.c.AddSet(set, nil); err != nil {
			return nil, err
		}
		over := &expr.Dynset{SrcRegKey: 1, SetName: set.Name, SetID: set.ID, Operation: uint32(unix.NFT_DYNSET_OP_ADD), Exprs: []expr.Any{l.state}}
		t.rule(limits, append(family(unix.NFPROTO_IPV4), sourceAddr(), over), drop)
	}
	t.rule(limits, accept)
	return limits, nil
}

// egress makes the chain for what dynos send beyond this host.
func (t *ruleset) egress(limits *nftables.Chain) *nftables.Chain {
	egress := t.chain("egress")
	t.rule(egress, family(unix.NFPROTO_IPV6), drop)
	t.rule(egress, t.source(expr.CmpOpNeq), drop)
	for _, dns := range t.resolvers() {
		t.rule(egress, dns, jump(limits)) // some clouds' is link-local
	}
	t.rule(egress, destination(t.cfg.Pool), drop) // also where no dyno is now: such a packet would leave by the uplink
	t.rule(egress, destination(netip.MustParsePrefix("169.254.0.0/16")), drop)
	for _, addr := range manifold.MetadataAddrs() {
		if addr.Is4() { // of IPv6 nothing passes
			t.rule(egress, destination(netip.PrefixFrom(addr, 32)), drop)
		}
	}
	t.rule(egress, jump(limits))
	return egress
}

// resolvers matches questions to the name servers that dynos may ask, also
// where one is this host itself.
func (t *ruleset) resolvers() (matches [][]expr.Any) {
	for _, r := range t.cfg.Resolvers {
		if !r.Is4() {
			continue // dynos have no IPv6
		}
		for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			matches = append(matches, append(destination(netip.PrefixFrom(r, 32)), ports(proto, 53, 53)...))
		}
	}
	return matches
}

// link matches packets by whether the link's name begins with ours.
func (t *ruleset) link(key expr.MetaKey, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: []byte(t.cfg.linkPrefix())}, // shorter than a name: a prefix
	}
}

// source matches IPv4 packets by whether their source is in the pool.
func (t *ruleset) source(op expr.CmpOp) []expr.Any {
	return v4(sourceAddr(), t.cfg.Pool, op)
}

func destination(net netip.Prefix) []expr.Any {
	return v4(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}, net, expr.CmpOpEq)
}

// sourceAddr loads an IPv4 packet's source address.
func sourceAddr() expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
}

// v4 matches IPv4 packets by whether the address is in net.
func v4(address expr.Any, net netip.Prefix, op expr.CmpOp) []expr.Any {
	base := net.Addr().As4()
	mask := binaryutil.BigEndian.PutUint32(^uint32(0) << (32 - net.Bits()))
	return append(family(unix.NFPROTO_IPV4), address,
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: base[:]},
	)
}

func family(proto byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
	}
}

// ports matches TCP or UDP packets by their destination port.
func ports(proto byte, first, last uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: binaryutil.BigEndian.PutUint16(first), ToData: binaryutil.BigEndian.PutUint16(last)},
	}
}

// answers matches packets of connections that are open already.
func answers() []expr.Any {
	states := expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(states), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

var (
	drop   = []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	accept = []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
)

// jump goes to a chain that ends in a verdict, so it does not come back.
func jump(chain *nftables.Chain) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain.Name}}
}
