package main

// The units of Grafana that the panels use.
const (
	perSecond  = "ops"
	bytesUnit  = "bytes"
	byteRate   = "Bps"
	secondUnit = "s"
	plain      = "short"
	percent    = "percentunit"
	timestamp  = "dateTimeFromNow"
)

// row is a line of the dashboard with a heading.
type row struct {
	title  string
	panels []panel
}

// panel is one graph; stat is one number instead.
type panel struct {
	title, unit string
	queries     []query
	stat        bool
}

// query is PromQL and the name of its series. $in stands for the matcher of the chosen
// namespaces, $rate for the interval of rates.
type query struct{ expr, legend string }

// quantiles are the queries of a histogram's 50th and 99th percentile.
func quantiles(metric, matcher string) []query {
	expr := func(q string) string {
		return "histogram_quantile(" + q + ", sum by (le) (rate(" + metric + "_bucket{" + matcher + "$in}[$rate])))"
	}
	return []query{{expr("0.5"), "p50"}, {expr("0.99"), "p99"}}
}

// rate is the sum over all processes of a counter's rate, by labels.
func rate(metric, by, matcher string) string {
	if by != "" {
		by = " by (" + by + ")"
	}
	return "sum" + by + " (rate(" + metric + "{" + matcher + "$in}[$rate]))"
}

var rows = []row{
	{"At a glance", []panel{
		{"Connections", plain, []query{{"sum(wirepost_edge_connections{$in})", ""}}, true},
		{"Messages stored", perSecond, []query{{rate("wirepost_worker_messages_total", "", `outcome="stored",`), ""}}, true},
		{"End to end, p99", secondUnit, quantiles("wirepost_edge_echo_seconds", "")[1:], true},
		{"Messages waiting", plain, []query{{"sum(wirepost_worker_lane_lag{$in})", ""}}, true},
		{"Conditions not met", plain, []query{{"count(wirepost_ready{$in} == 0) or vector(0)", ""}}, true},
		{"Dead messages, a day", plain, []query{{"sum(increase(wirepost_worker_lane_dead_total{$in}[1d]))", ""}}, true},
	}},
	{"Clients", []panel{
		{"Connections by edge", plain, []query{{"wirepost_edge_connections{$in}", "{{instance}}"}}, false},
		{"Connects", perSecond, []query{{rate("wirepost_edge_accepted_total", "", ""), "accepted"}, {rate("wirepost_edge_handshakes_total", "", ""), "handshakes"}, {rate("wirepost_edge_logins_total", "", ""), "logins"}}, false},
		{"Handshakes refused", perSecond, []query{{rate("wirepost_edge_handshakes_refused_total", "reason", ""), "{{reason}}"}}, false},
		{"Connections closed", perSecond, []query{{rate("wirepost_edge_closed_total", "code, reason", ""), "{{code}} {{reason}}"}}, false},
		{"Tokens refused", perSecond, []query{{rate("wirepost_edge_auth_refused_total", "reason", ""), "{{reason}}"}}, false},
		{"Arriving and limited", plain, []query{{"sum(wirepost_edge_connections_arriving{$in})", "arriving"}, {"sum(wirepost_edge_connections_limited{$in})", "limited"}}, false},
	}},
	{"Traffic", []panel{
		{"End to end: receipt to echo", secondUnit, quantiles("wirepost_edge_echo_seconds", ""), false},
		{"Frames", perSecond, []query{{rate("wirepost_edge_messages_in_total", "", ""), "in"}, {rate("wirepost_edge_frames_out_total", "", ""), "out"}, {rate("wirepost_edge_heartbeats_total", "", ""), "heartbeats"}}, false},
		{"Bytes", byteRate, []query{{rate("wirepost_edge_bytes_in_total", "", ""), "in"}, {rate("wirepost_edge_bytes_out_total", "", ""), "out"}}, false},
		{"Chat messages", perSecond, []query{{rate("wirepost_worker_messages_total", "outcome", ""), "{{outcome}}"}}, false},
		{"Frames refused", perSecond, []query{{rate("wirepost_worker_refusals_total", "code", ""), "{{code}}"}}, false},
		{"Queries", perSecond, []query{{`sum by (op) (rate(wirepost_worker_store_seconds_count{op=~"history|conversations|members",$in}[$rate]))`, "{{op}}"}, {rate("wirepost_worker_queries_busy_total", "", ""), "refused"}}, false},
	}},
	{"Uplink", []panel{
		{"Publish to acknowledgement", secondUnit, quantiles("wirepost_edge_uplink_publish_seconds", ""), false},
		{"Oldest event", secondUnit, []query{{"wirepost_edge_uplink_oldest_seconds{$in}", "{{instance}}"}}, false},
		{"Outcomes and retries", perSecond, []query{{rate("wirepost_edge_uplink_events_total", "outcome", ""), "{{outcome}}"}, {rate("wirepost_edge_uplink_retries_total", "cause", ""), "retry: {{cause}}"}}, false},
	}},
	{"Lanes", []panel{
		{"Lag by lane", plain, []query{{"sum by (lane) (wirepost_worker_lane_lag{$in})", "{{lane}}"}}, false},
		{"Oldest message by lane", secondUnit, []query{{"max by (lane) (wirepost_worker_lane_oldest_seconds{$in})", "{{lane}}"}}, false},
		{"Messages worked by lane", perSecond, []query{{rate("wirepost_worker_lane_messages_total", "lane", ""), "{{lane}}"}}, false},
		{"Batch size", plain, quantiles("wirepost_worker_lane_batch_messages", ""), false},
		{"Lanes by worker", plain, []query{{"wirepost_worker_lanes_owned{$in}", "{{instance}}"}}, false},
		{"Take-overs, resets, retries", perSecond, []query{{rate("wirepost_worker_lane_take_overs_total", "", ""), "take-overs"}, {rate("wirepost_worker_lane_resets_total", "cause", ""), "{{cause}}"}, {rate("wirepost_worker_lane_retries_total", "", ""), "retries"}}, false},
	}},
	{"Store", []panel{
		{"Storing a batch", secondUnit, quantiles("wirepost_worker_store_seconds", `op="append",`), false},
		{"Operations, p99", secondUnit, []query{{"histogram_quantile(0.99, sum by (le, op) (rate(wirepost_worker_store_seconds_bucket{$in}[$rate])))", "{{op}}"}}, false},
		{"Errors", perSecond, []query{{rate("wirepost_worker_store_errors_total", "op", ""), "{{op}}"}}, false},
	}},
	{"Downlink", []panel{
		{"Frames", perSecond, []query{{rate("wirepost_edge_downlink_frames_total", "fate", ""), "{{fate}}"}, {rate("wirepost_worker_downlink_frames_total", "", ""), "published"}}, false},
		{"Logins by resume", perSecond, []query{{rate("wirepost_edge_downlink_attached_total", "result", ""), "{{result}}"}}, false},
		{"Marker", secondUnit, quantiles("wirepost_edge_downlink_marker_seconds", ""), false},
		{"Gaps and repairs", perSecond, []query{{rate("wirepost_edge_downlink_gaps_total", "", ""), "gaps"}, {rate("wirepost_edge_downlink_repaired_frames_total", "", ""), "frames repaired"}, {rate("wirepost_edge_downlink_swept_behind_total", "", ""), "found by sweeps"}, {rate("wirepost_edge_downlink_lost_ranges_total", "", ""), "lost, sync"}}, false},
		{"Disturbances", perSecond, []query{{rate("wirepost_edge_downlink_disturbances_total", "cause", ""), "{{cause}}"}, {rate("wirepost_edge_downlink_epochs_total", "", ""), "began anew"}, {rate("wirepost_edge_downlink_read_errors_total", "", ""), "read errors"}}, false},
		{"Users", plain, []query{{"sum(wirepost_edge_downlink_users{$in})", "users"}}, false},
	}},
	{"Trouble", []panel{
		{"Conditions of readiness", plain, []query{{"min by (check) (wirepost_ready{$in})", "{{check}}"}}, false},
		{"Dead, panics, skipped", plain, []query{{"sum(increase(wirepost_worker_lane_dead_total{$in}[$rate]))", "dead"}, {"sum(increase(wirepost_worker_lane_panics_total{$in}[$rate])) + sum(increase(wirepost_worker_query_panics_total{$in}[$rate]))", "panics"}, {"sum(increase(wirepost_worker_lane_skipped_total{$in}[$rate]))", "skipped"}}, false},
		{"Streams", plain, []query{{"min(wirepost_worker_streams_complete{$in})", "complete"}, {"sum(increase(wirepost_worker_streams_made_total{$in}[$rate]))", "made"}}, false},
		{"Reconnects to NATS", plain, []query{{"increase(wirepost_edge_nats_reconnects_total{$in}[$rate])", "{{instance}}"}, {"increase(wirepost_worker_nats_reconnects_total{$in}[$rate])", "{{instance}}"}}, false},
		{"Certificate of NATS ends", timestamp, []query{{"min((wirepost_edge_nats_certificate_end_timestamp_seconds{$in} > 0) * 1000)", "edges"}, {"min((wirepost_worker_nats_certificate_end_timestamp_seconds{$in} > 0) * 1000)", "workers"}}, true},
		{"JWKS fetched", timestamp, []query{{"min((wirepost_edge_auth_jwks_fetched_timestamp_seconds{$in} > 0) * 1000)", ""}}, true},
	}},
	{"Processes", []panel{
		{"Edge memory, of the limit", percent, []query{{"wirepost_edge_memory_used_bytes{$in} / (wirepost_edge_memory_limit_bytes{$in} > 0)", "{{instance}}"}}, false},
		{"Resident memory", bytesUnit, []query{{"process_resident_memory_bytes{$in} and on (instance) wirepost_build_info{$in}", "{{instance}}"}}, false},
		{"CPU", plain, []query{{"rate(process_cpu_seconds_total{$in}[$rate]) and on (instance) wirepost_build_info{$in}", "{{instance}}"}}, false},
		{"Descriptors, of the limit", percent, []query{{"process_open_fds{$in} / process_max_fds{$in} and on (instance) wirepost_build_info{$in}", "{{instance}}"}}, false},
		{"Goroutines", plain, []query{{"go_goroutines{$in} and on (instance) wirepost_build_info{$in}", "{{instance}}"}}, false},
		{"Version", plain, []query{{"count by (version) (wirepost_build_info{$in})", "{{version}}"}}, false},
	}},
}
