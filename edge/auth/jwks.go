package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"
)

// Bounds of the fetched keys.
const (
	maxJWKSBytes = 1 << 20
	maxJWKSKeys  = 64
	// maxWaiting is how many callers of Verify wait for a fetch at a time: the rest of
	// their pool goes on with tokens whose keys are known.
	maxWaiting = 2
)

// timing is when keys are fetched. Constants until an operator asks.
type timing struct {
	refresh  time.Duration // between successful fetches: how long a withdrawn key still works
	retryMin time.Duration // after a failed fetch, doubled up to retryMax
	retryMax time.Duration
	fetch    time.Duration // limit of one fetch
	wait     time.Duration // how long a caller with an unknown kid waits for a fetch
	unknown  time.Duration // least time between fetches for unknown kids: anybody can make kids up
}

var defaultTiming = timing{
	refresh:  5 * time.Minute,
	retryMin: time.Second,
	retryMax: 30 * time.Second,
	fetch:    5 * time.Second,
	wait:     2 * time.Second,
	unknown:  10 * time.Second,
}

var (
	// errURL is returned when the JWKS URL is not an absolute http or https URL.
	errURL = errors.New("the JWKS URL is not an absolute http or https URL")
	// errNoUsableKey is returned when a JWKS holds no key that can be used. The keys of
	// the fetch before stay.
	errNoUsableKey = errors.New("no usable key in the JWKS")
	errTooLarge    = errors.New("the JWKS is larger than 1 MiB")
)

// remoteKeys holds the keys of a JWKS URL (RFC 7517). One goroutine, run, fetches; the
// last good set stays when a fetch fails.
type remoteKeys struct {
	url     string
	host    string // what a log shows of url, which may hold credentials
	client  *http.Client
	timing  timing
	log     *slog.Logger
	metrics *metrics

	set     atomic.Pointer[keySet] // nil before the first success; written by run
	waiting atomic.Int32
	want    chan struct{} // written by refetch, read by run; capacity 1; never closed

	mu      sync.Mutex
	limiter *rate.Limiter // of fetches for unknown kids
	pending bool          // a fetch is wanted or under way
	done    chan struct{} // closed by run when the pending fetch has ended, then replaced
}

// keySet is by kid; a JWKS key without one has kid "". Read-only.
type keySet map[string][]PublicKey

// CheckJWKSURL returns an error for a URL that New refuses.
func CheckJWKSURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return errURL
	}
	return nil
}

func newRemoteKeys(raw string, log *slog.Logger, m *metrics) (*remoteKeys, error) {
	if err := CheckJWKSURL(raw); err != nil {
		return nil, err
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errURL
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSHandshakeTimeout: defaultTiming.fetch,
		DisableKeepAlives:   true, // one request in minutes
		ForceAttemptHTTP2:   true,
	}
	return &remoteKeys{
		url:  raw,
		host: u.Host,
		client: &http.Client{
			Transport: transport,
			// The address is configuration: no answer moves it.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		timing:  defaultTiming,
		log:     log,
		metrics: m,
		want:    make(chan struct{}, 1),
		limiter: rate.NewLimiter(rate.Every(defaultTiming.unknown), 1),
		done:    make(chan struct{}),
	}, nil
}

func (r *remoteKeys) fetched() bool { return r.set.Load() != nil }

// lookup returns the keys of kid for alg; known reports that the set holds kid at all.
func (r *remoteKeys) lookup(kid, alg string) (keys []jwt.VerificationKey, known bool) {
	set := r.set.Load()
	if set == nil {
		return nil, false
	}
	all, known := (*set)[kid]
	for _, k := range all {
		if k.alg == alg {
			keys = append(keys, k.key)
		}
	}
	return keys, known
}

// refetch asks run for a fetch, if the limit lets it, and waits for the one that is
// under way then.
func (r *remoteKeys) refetch(ctx context.Context) {
	if r.waiting.Add(1) > maxWaiting {
		r.waiting.Add(-1)
		return
	}
	defer r.waiting.Add(-1)
	done := r.ask()
	if done == nil {
		return
	}
	limit := time.NewTimer(r.timing.wait)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
	case <-ctx.Done():
	}
}

// ask returns a channel that is closed when the fetch ends, nil when there is none.
func (r *remoteKeys) ask() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.pending {
		if !r.limiter.Allow() {
			return nil
		}
		r.pending = true
		r.want <- struct{}{} // has room: pending was false
	}
	return r.done
}

// run fetches at once, then every timing.refresh, on demand, and soon after a failure.
func (r *remoteKeys) run(ctx context.Context) {
	next := time.NewTimer(0)
	defer next.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.want:
		case <-next.C:
		}
		next.Reset(r.round(ctx, &failures))
	}
}

// round makes one fetch, wakes who waits for it, and returns the time until the next.
func (r *remoteKeys) round(ctx context.Context, failures *int) time.Duration {
	r.mu.Lock()
	r.pending = true
	r.mu.Unlock()

	n, err := r.fetch(ctx)

	r.mu.Lock()
	r.pending = false
	close(r.done)
	r.done = make(chan struct{})
	select {
	case <-r.want: // this fetch was the answer
	default:
	}
	r.mu.Unlock()

	if err == nil {
		r.metrics.fetched.Inc()
		r.metrics.fetchedAt.SetToCurrentTime()
		if *failures > 0 {
			r.log.Info("token keys are available again", "host", r.host, "keys", n)
		}
		*failures = 0
		return r.timing.refresh
	}
	wait := min(r.timing.retryMin<<min(*failures, 16), r.timing.retryMax)
	*failures++
	if ctx.Err() == nil {
		r.metrics.fetchFailed.Inc()
		r.log.Warn("fetch token keys", "host", r.host, "err", err, "retry_in", wait, "have_keys", r.fetched())
	}
	return wait
}

func (r *remoteKeys) fetch(ctx context.Context) (keys int, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.timing.fetch)
	defer cancel()
	body, err := r.get(ctx)
	if err != nil {
		return 0, err
	}
	set, n, err := parseJWKS(body)
	if err != nil {
		return 0, err
	}
	r.set.Store(&set)
	return n, nil
}

func (r *remoteKeys) get(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return nil, errURL
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := r.client.Do(req)
	if err != nil {
		var wrapped *url.Error // its text holds the URL
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKSBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the JWKS: %w", err)
	}
	if len(body) > maxJWKSBytes {
		return nil, errTooLarge
	}
	return body, nil
}

// parseJWKS takes the keys that can be used: public, for signatures, of an accepted
// algorithm. It skips the others, one of which must not take the whole set away.
func parseJWKS(body []byte) (set keySet, n int, err error) {
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, 0, errors.New("the JWKS is not a JSON object with keys")
	}
	set = keySet{}
	for _, raw := range doc.Keys {
		kid, key, err := parseJWK(raw)
		if err != nil {
			continue
		}
		set[kid] = append(set[kid], key)
		if n++; n == maxJWKSKeys {
			break
		}
	}
	if n == 0 {
		return nil, 0, errNoUsableKey
	}
	return set, n, nil
}

func parseJWK(raw json.RawMessage) (kid string, key PublicKey, err error) {
	one, err := keyfunc.NewJWKJSON(raw)
	if err != nil {
		return "", PublicKey{}, err
	}
	all, err := one.Storage().KeyReadAll(context.Background())
	if err != nil {
		return "", PublicKey{}, err
	}
	if len(all) != 1 {
		return "", PublicKey{}, errNoUsableKey
	}
	meta := all[0].Marshal()
	if meta.USE != "" && meta.USE != "sig" {
		return "", PublicKey{}, ErrKeyKind
	}
	key, err = newPublicKey(all[0].Key()) // refuses secrets (kty oct) and private keys
	if err != nil {
		return "", PublicKey{}, err
	}
	if alg := meta.ALG.String(); alg != "" && alg != key.alg {
		return "", PublicKey{}, ErrKeyKind
	}
	return meta.KID, key, nil
}
