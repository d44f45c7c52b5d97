#include "http/access.hpp"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <cmath>
#include <rqxx/error.hpp>
#include <set>

#include "base/utf8.hpp"
#include "ops/access.hpp"
#include "ops/deduplication.hpp"
#include "ops/new_job.hpp"

namespace rqxx::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr double most_failures = 10;       ///< At once, and per minute, from one address.
constexpr double most_failures_all = 100;  ///< The same from all.
constexpr std::size_t most_addresses = 10'000;
constexpr std::size_t most_remembered = 10'000;
constexpr auto believed = 1s;
constexpr std::string_view cookie_name = "rqxx_session";

/// Those who share a network of IPv6 are one.
std::string network_of(std::string_view text) {
    boost::system::error_code error;
    const auto address = asio::ip::make_address(std::string(text), error);
    if (error || !address.is_v6()) return std::string(text.substr(0, 64));
    auto bytes = address.to_v6().to_bytes();
    std::fill(bytes.begin() + 8, bytes.end(), 0);
    return asio::ip::address_v6(bytes).to_string();
}

/// A name for the sessions of the token that the server was started with: the same on all servers
/// that have it, and dear to guess from.
std::string session_name(const std::string& token) {
    constexpr std::string_view salt = "rqxx session";
    constexpr int rounds = 100'000;
    unsigned char key[16];
    if (::PKCS5_PBKDF2_HMAC(token.data(), static_cast<int>(token.size()),
                            reinterpret_cast<const unsigned char*>(salt.data()),
                            static_cast<int>(salt.size()), rounds, ::EVP_sha256(), sizeof key,
                            key) != 1)
        throw Error(Errc::internal, "the token cannot be hashed");
    std::string name = "options:";
    for (const unsigned char byte : key)
        name += fmt::format("{:02x}", byte);
    return name;
}

HttpError unauthorized(std::string detail) {
    return {401, std::move(detail), "unauthorized", {{"WWW-Authenticate", "Bearer"}}};
}

/// The body's member, or null where it is absent.
json::value take(json::object& body, std::string_view name) {
    const auto found = body.find(name);
    if (found == body.end()) return nullptr;
    json::value value = std::move(found->value());
    body.erase(found);
    return value;
}

json::object object_body(const Request& request) {
    json::value body = request.json();
    if (!body.is_object()) throw HttpError(422, "the body must be an object");
    return std::move(body.get_object());
}

void refuse_rest(const json::object& body) {
    if (!body.empty())
        throw HttpError(
            422, fmt::format("{}: is not known",
                             to_valid_utf8(std::string_view(body.begin()->key()).substr(0, 80))));
}

std::string text_of(const json::value& value, std::string_view name) {
    if (!value.is_string()) throw HttpError(422, fmt::format("{}: must be text", name));
    return std::string(value.get_string());
}

std::vector<std::string> texts_of(const json::value& value, std::string_view name) {
    if (!value.is_array()) throw HttpError(422, fmt::format("{}: must be a list of text", name));
    std::vector<std::string> texts;
    for (const auto& item : value.get_array())
        texts.push_back(text_of(item, name));
    return texts;
}

/// `scope`, or the greatest of `scopes`: each includes the ones below.
std::string scope_field(json::object& body) {
    const json::value one = take(body, "scope"), many = take(body, "scopes");
    if (one.is_null() == many.is_null())
        throw HttpError(422, "scope: either it or scopes must be given");
    const auto words =
        one.is_null() ? texts_of(many, "scopes") : std::vector{text_of(one, "scope")};
    Scope greatest = Scope::none;
    for (const auto& word : words) {
        const auto scope = parse_scope(word);
        if (!scope)
            throw HttpError(422, fmt::format("{}: must be read, operate or admin",
                                             one.is_null() ? "scopes" : "scope"));
        greatest = std::max(greatest, *scope);
    }
    if (greatest == Scope::none) throw HttpError(422, "scopes: must name one at least");
    return std::string(to_string(greatest));
}

std::optional<std::chrono::seconds> expiry_field(json::object& body) {
    const json::value value = take(body, "expires_in");
    if (value.is_null()) return std::nullopt;
    if (const auto* seconds = value.if_int64()) return std::chrono::seconds(*seconds);
    const auto duration = parse_duration(text_of(value, "expires_in"));
    if (!duration) throw HttpError(422, fmt::format("expires_in: {}", duration.error().message));
    return *duration;
}

constexpr std::string_view session_schema =
    R"({"type":"object","required":["name","scopes","queues","read_only","redact","auth"],"properties":{"name":{"type":"string"},"scopes":{"type":"array","items":{"enum":["read","operate","admin"]}},"queues":{"type":"array","items":{"type":"string"}},"read_only":{"type":"boolean","description":"nobody changes anything through this server"},"redact":{"type":"boolean","description":"the data of jobs is hidden"},"auth":{"enum":["none","token","session"]}}})";

constexpr std::string_view token_schema =
    R"({"type":"object","required":["id","name","scope","queues","redact","created_at","expires_at"],"properties":{"id":{"type":"string"},"name":{"type":"string"},"scope":{"enum":["read","operate","admin"]},"queues":{"type":"array","items":{"type":"string"}},"redact":{"type":"boolean"},"created_at":{"type":"string","format":"date-time"},"expires_at":{"type":["string","null"],"format":"date-time"}}})";

constexpr std::string_view new_token_schema =
    R"({"type":"object","required":["name"],"properties":{"name":{"type":"string"},"scope":{"enum":["read","operate","admin"]},"scopes":{"type":"array","items":{"enum":["read","operate","admin"]},"description":"instead of scope; the greatest counts, it includes the others"},"queues":{"type":"array","items":{"type":"string"},"description":"names of queues, * stands for any text; all unless given"},"redact":{"type":"boolean","description":"hide arguments, results, meta data, descriptions and output of jobs"},"expires_in":{"type":["integer","string","null"],"description":"seconds, or such as 30d; never unless given"}},"additionalProperties":false})";

}  // namespace

// ---- failures
// ----------------------------------------------------------------------------------

double FailureLimiter::level(const Bucket& bucket, Time now, double per_minute) {
    const Seconds passed = now - bucket.at;
    return std::max(0.0, bucket.level - passed.count() * per_minute / 60);
}

std::optional<std::chrono::seconds> FailureLimiter::wait(std::string_view address, Time now) {
    const auto seconds = [&](const Bucket& bucket, double most) {
        const double over = level(bucket, now, most) + 1 - most;
        return over > 0 ? static_cast<std::int64_t>(std::ceil(over * 60 / most)) : 0;
    };
    std::int64_t longest = seconds(all_, most_failures_all);
    if (const auto found = addresses_.find(network_of(address)); found != addresses_.end())
        longest = std::max(longest, seconds(found->second, most_failures));
    return longest > 0 ? std::optional(std::chrono::seconds(longest)) : std::nullopt;
}

void FailureLimiter::failed(std::string_view address, Time now) {
    all_ = {level(all_, now, most_failures_all) + 1, now};
    std::string network = network_of(address);
    if (addresses_.size() >= most_addresses && !addresses_.contains(network)) {
        std::erase_if(addresses_, [&](const auto& entry) {
            return level(entry.second, now, most_failures) == 0;
        });
        if (addresses_.size() >= most_addresses) return;  // What is for all holds them up.
    }
    Bucket& bucket = addresses_[std::move(network)];
    bucket = {level(bucket, now, most_failures) + 1, now};
}

// ---- cookies
// ----------------------------------------------------------------------------------

std::optional<std::string_view> cookie_value(std::string_view header,
                                             std::string_view name) noexcept {
    std::optional<std::string_view> value;
    while (!header.empty()) {
        const auto end = std::min(header.find(';'), header.size());
        std::string_view pair = header.substr(0, end);
        header.remove_prefix(std::min(end + 1, header.size()));
        while (pair.starts_with(' '))
            pair.remove_prefix(1);
        const auto equals = pair.find('=');
        if (equals == std::string_view::npos || pair.substr(0, equals) != name) continue;
        if (value) return std::nullopt;
        value = pair.substr(equals + 1);
    }
    return value;
}

// ---- who asks
// ----------------------------------------------------------------------------------

struct Access::Impl {
    Impl(RedisClient& redis_, AccessOptions options_, Logger& log_)
        : redis(redis_), options(std::move(options_)), log(log_) {
        if (!options.token.empty()) options_session = session_name(options.token);
        Principal anybody;
        anybody.redaction = options.redaction;
        local = std::make_shared<const Principal>(std::move(anybody));
    }

    template <class T>
    struct Known {
        std::optional<T> value;  ///< Nothing: there is none.
        Clock::time_point at;
    };
    /// What Redis said a moment ago.
    template <class T>
    using Cache = std::map<std::string, Known<T>, std::less<>>;

    RedisClient& redis;
    AccessOptions options;
    Logger& log;
    std::string options_session;  ///< Stands for the token of the options in sessions.
    std::shared_ptr<const Principal> local;
    FailureLimiter failures;
    Cache<ops::AccessToken> tokens;
    Cache<ops::AccessSession> sessions;
    std::set<std::string, std::less<>> proven;  ///< Hashes of tokens that were right.
    struct OwnSession {
        std::string token_id;
        Clock::time_point begun, used;
    };
    /// Sessions of a server that changes nothing in Redis.
    std::map<std::string, OwnSession, std::less<>> own_sessions;

    template <class T, class Ask>
    static asio::awaitable<std::optional<T>> look_up(Cache<T>& cache, std::string key, Ask ask) {
        const auto now = Clock::now();
        if (const auto found = cache.find(key);
            found != cache.end() && now - found->second.at < believed)
            co_return found->second.value;
        std::optional<T> value = co_await ask();
        if (cache.size() >= most_remembered) cache.clear();
        cache.insert_or_assign(std::move(key), Known<T>{value, now});
        co_return value;
    }

    asio::awaitable<std::optional<ops::AccessToken>> token(std::string id) {
        co_return co_await look_up(tokens, id,
                                   [this, id] { return ops::find_access_token(redis, id); });
    }

    [[nodiscard]] std::shared_ptr<const Principal> administrator(std::string auth) const {
        Principal principal = *local;
        principal.name = "admin";
        principal.auth = std::move(auth);
        return std::make_shared<const Principal>(std::move(principal));
    }

    [[nodiscard]] std::shared_ptr<const Principal> principal_of(const ops::AccessToken& token,
                                                                std::string auth) const {
        Principal principal;
        principal.name = token.name;
        principal.scope = parse_scope(token.scope).value_or(Scope::none);
        principal.queues = token.queues;
        principal.redaction = options.redaction;
        principal.redaction.all = principal.redaction.all || token.redact;
        principal.auth = std::move(auth);
        return std::make_shared<const Principal>(std::move(principal));
    }

    /// Whom a token stands for, and what its sessions are to remember.
    struct Proven {
        std::shared_ptr<const Principal> principal;
        std::string token_id;
    };

    /// @throws HttpError 401, or 429 for who was wrong too often.
    asio::awaitable<Proven> check_token(std::string text, std::string remote) {
        const std::string hash = ops::sha256_hex(text);
        // Who was right before is no guesser, whatever others behind the same proxy do.
        if (!proven.contains(hash)) {
            if (const auto wait = failures.wait(remote, Clock::now()))
                throw HttpError(429, "Too many wrong tokens came from here", "too_many_failures",
                                {{"Retry-After", std::to_string(wait->count())}});
        }
        Proven found;
        if (!options.token.empty() && ops::has_sha256(options.token, hash)) {
            found = {administrator("token"), options_session};
        } else if (const auto parsed = ops::parse_token(text)) {
            const auto known = co_await token(parsed->id);
            if (known && ops::has_sha256(parsed->secret, known->secret_sha256))
                found = {principal_of(*known, "token"), known->id};
        }
        if (!found.principal) {
            proven.erase(hash);
            failures.failed(remote, Clock::now());
            log.warning("A wrong token was refused", "remote", remote);
            throw unauthorized("The token is not valid");
        }
        if (proven.size() >= most_remembered) proven.clear();
        proven.insert(hash);
        co_return found;
    }

    static std::optional<std::string> session_hash(const Request& request) {
        if (request.header_count("Cookie") > 1) return std::nullopt;
        const auto value = cookie_value(request.header("Cookie").value_or(""), cookie_name);
        if (!value || value->empty() || value->size() > 200) return std::nullopt;
        return ops::sha256_hex(*value);
    }

    asio::awaitable<std::optional<std::string>> token_of_session(std::string hash) {
        if (options.read_only) {
            const auto found = own_sessions.find(hash);
            if (found == own_sessions.end()) co_return std::nullopt;
            OwnSession& session = found->second;
            const auto now = Clock::now();
            if (now - session.used > ops::unused_session_lives ||
                now - session.begun > ops::session_lives) {
                own_sessions.erase(found);
                co_return std::nullopt;
            }
            session.used = now;
            co_return session.token_id;
        }
        const auto session = co_await look_up(
            sessions, hash, [this, hash] { return ops::find_session(redis, hash); });
        co_return session ? std::optional(session->token_id) : std::nullopt;
    }

    /// Nobody for a session that has ended.
    asio::awaitable<std::shared_ptr<const Principal>> of_session(std::string hash) {
        const auto id = co_await token_of_session(std::move(hash));
        if (!id) co_return nullptr;
        if (!options_session.empty() && *id == options_session) co_return administrator("session");
        const auto known = co_await token(*id);
        co_return known ? principal_of(*known, "session") : nullptr;
    }

    /// @throws HttpError 401 for nobody whom we know.
    asio::awaitable<std::shared_ptr<const Principal>> identify(const Request& request) {
        if (!options.required) co_return local;
        if (const auto given = request.header("Authorization")) {
            constexpr std::string_view scheme = "Bearer ";
            if (request.header_count("Authorization") > 1 || !given->starts_with(scheme))
                throw unauthorized("One bearer token is needed");
            const Proven proof =
                co_await check_token(std::string(given->substr(scheme.size())), request.remote);
            co_return proof.principal;
        }
        if (auto hash = session_hash(request)) {
            if (auto principal = co_await of_session(std::move(*hash))) co_return principal;
            throw unauthorized("The session has ended");
        }
        throw unauthorized("A token or a session is needed");
    }

    asio::awaitable<void> admit(Request& request, Scope needed, bool changes) {
        if (needed == Scope::none) co_return;
        request.principal = co_await identify(request);
        const Principal& principal = *request.principal;
        // The browser adds the cookie whoever asks: it has to say that it was our page.
        if (changes && principal.auth == "session" && !request.header("Sec-Fetch-Site") &&
            !request.header("Origin"))
            throw cross_site_refusal();
        if (principal.scope < needed)
            throw HttpError(403, fmt::format("The scope \"{}\" is needed", to_string(needed)),
                            "scope");
        if (changes && options.read_only)
            throw HttpError(403, "This server changes nothing", "read_only");
    }

    // ---- routes ----

    [[nodiscard]] json::object describe(const Principal& principal) const {
        json::array scopes;
        for (const Scope scope : {Scope::read, Scope::operate, Scope::admin})
            if (scope <= principal.scope) scopes.emplace_back(to_string(scope));
        return {{"name", principal.name},
                {"scopes", std::move(scopes)},
                {"queues", json::array(principal.queues.begin(), principal.queues.end())},
                {"read_only", options.read_only},
                {"redact", principal.redaction.all},
                {"auth", principal.auth}};
    }

    [[nodiscard]] std::string cookie(std::string_view value, bool secure, bool over) const {
        return fmt::format("{}={}; Path={}; HttpOnly; SameSite=Strict{}{}", cookie_name, value,
                           options.cookie_path, secure ? "; Secure" : "",
                           over ? "; Max-Age=0" : "");
    }

    asio::awaitable<void> begin(std::string hash, std::string token_id) {
        if (!options.read_only) {
            co_await ops::begin_session(redis, std::move(hash), std::move(token_id));
            co_return;
        }
        if (own_sessions.size() >= most_remembered) {
            const auto oldest = std::min_element(
                own_sessions.begin(), own_sessions.end(),
                [](const auto& a, const auto& b) { return a.second.used < b.second.used; });
            own_sessions.erase(oldest);
        }
        const auto now = Clock::now();
        own_sessions.insert_or_assign(std::move(hash), OwnSession{std::move(token_id), now, now});
    }

    asio::awaitable<void> end(std::string hash) {
        sessions.erase(hash);
        if (own_sessions.erase(hash) == 0 && !options.read_only)
            co_await ops::end_session(redis, std::move(hash));
    }

    /// The browser gets a new id each time, so that nobody can give it one that he knows.
    asio::awaitable<Response> log_in(Request request) {
        json::object body = object_body(request);
        std::string text = text_of(take(body, "token"), "token");
        refuse_rest(body);
        if (!options.required) co_return json_response(200, describe(*local));
        Proven proof = co_await check_token(std::move(text), request.remote);
        if (auto old = session_hash(request)) co_await end(std::move(*old));
        const std::string id = ops::random_hex(24);
        co_await begin(ops::sha256_hex(id), std::move(proof.token_id));
        Principal principal = *proof.principal;
        principal.auth = "session";
        log.info("Logged in", "name", principal.name, "remote", request.remote);
        Response response = json_response(200, describe(principal));
        response.headers = {{"Set-Cookie", cookie(id, request.secure, false)}};
        co_return response;
    }

    asio::awaitable<Response> log_out(Request request) {
        if (auto hash = session_hash(request)) co_await end(std::move(*hash));
        Response response;
        response.status = 204;
        response.headers = {{"Set-Cookie", cookie("", request.secure, true)}};
        co_return response;
    }

    asio::awaitable<Response> list() {
        redis.require_connection();
        json::array listed;
        for (const auto& one : co_await ops::list_access_tokens(redis))
            listed.push_back(ops::to_json(one));
        co_return json_response(200, json::object{{"status", "ok"}, {"tokens", std::move(listed)}});
    }

    asio::awaitable<Response> create(Request request) {
        json::object body = object_body(request);
        ops::AccessToken wanted;
        wanted.name = text_of(take(body, "name"), "name");
        wanted.scope = scope_field(body);
        if (const auto queues = take(body, "queues"); !queues.is_null())
            wanted.queues = texts_of(queues, "queues");
        if (const auto redact = take(body, "redact"); !redact.is_null()) {
            if (!redact.is_bool()) throw HttpError(422, "redact: must be true or false");
            wanted.redact = redact.get_bool();
        }
        const auto expires_in = expiry_field(body);
        refuse_rest(body);
        redis.require_connection();
        const auto made = co_await ops::create_access_token(redis, std::move(wanted), expires_in);
        log.info("Token created", "id", made.token.id, "name", made.token.name, "scope",
                 made.token.scope);
        Response response = json_response(201, json::object{{"status", "ok"},
                                                            {"token", made.text},
                                                            {"details", ops::to_json(made.token)}});
        response.headers = {{"Location", fmt::format("/api/v1/tokens/{}", made.token.id)}};
        co_return response;
    }

    asio::awaitable<Response> revoke(Request request) {
        redis.require_connection();
        const std::string& id = request.path_param("token_id");
        if (!co_await ops::revoke_access_token(redis, id)) throw HttpError(404, "Token not found");
        tokens.erase(id);
        log.info("Token revoked", "id", id);
        co_return json_response(200, json::object{{"status", "ok"}, {"id", id}});
    }
};

Access::Access(RedisClient& redis, AccessOptions options, Logger& log)
    : impl_(std::make_shared<Impl>(redis, std::move(options), log)) {}
Access::~Access() = default;

Guard Access::guard() {
    return [impl = impl_](Request& request, Scope needed, bool changes) {
        return impl->admit(request, needed, changes);
    };
}

void Access::add_routes(Router& router) {
    const auto add = [&](Method method, std::string pattern, std::string summary, RouteDoc doc,
                         std::function<asio::awaitable<Response>(Impl&, Request)> handler) {
        doc.summary = std::move(summary);
        doc.tag = "access";
        router.add(method, std::move(pattern), std::move(doc),
                   [impl = impl_, handler = std::move(handler)](Request request) {
                       return handler(*impl, std::move(request));
                   });
    };
    RouteDoc open;
    open.scope = Scope::none;
    open.problems = {403, 503};
    RouteDoc enter = open;
    enter.request_schema =
        R"({"type":"object","required":["token"],"properties":{"token":{"type":"string"}},"additionalProperties":false})";
    enter.response_schema = session_schema;
    enter.problems = {401, 403, 413, 422, 429, 503};
    add(Method::post, "/api/v1/session", "Log in: a cookie for a token", enter,
        [](Impl& impl, Request request) { return impl.log_in(std::move(request)); });
    RouteDoc leave = open;
    leave.good_status = 204;
    add(Method::delete_, "/api/v1/session", "Log out", leave,
        [](Impl& impl, Request request) { return impl.log_out(std::move(request)); });
    RouteDoc who;
    who.keeps_to_queues = true;
    who.personal = true;
    who.response_schema = session_schema;
    add(Method::get, "/api/v1/session", "Who asks, and what he may do", who,
        [](Impl& impl, Request request) -> asio::awaitable<Response> {
            co_return json_response(
                200, impl.describe(request.principal ? *request.principal : *impl.local));
        });

    RouteDoc admin;
    admin.scope = Scope::admin;
    RouteDoc listed = admin;
    listed.response_schema = fmt::format(
        R"({{"type":"object","required":["status","tokens"],"properties":{{"status":{{"type":"string"}},"tokens":{{"type":"array","items":{}}}}}}})",
        token_schema);
    add(Method::get, "/api/v1/tokens", "Who may use this API", listed,
        [](Impl& impl, Request) { return impl.list(); });
    RouteDoc created = admin;
    created.action = "token.create";
    created.good_status = 201;
    created.request_schema = new_token_schema;
    created.response_schema = fmt::format(
        R"({{"type":"object","required":["status","token","details"],"properties":{{"status":{{"type":"string"}},"token":{{"type":"string","description":"nobody tells it again"}},"details":{}}}}})",
        token_schema);
    created.problems = {413, 422};
    add(Method::post, "/api/v1/tokens", "Make a token", created,
        [](Impl& impl, Request request) { return impl.create(std::move(request)); });
    RouteDoc revoked = admin;
    revoked.action = "token.revoke";
    revoked.problems = {404};
    add(Method::delete_, "/api/v1/tokens/{token_id}", "Revoke a token; its sessions end with it",
        revoked, [](Impl& impl, Request request) { return impl.revoke(std::move(request)); });
}

}  // namespace rqxx::http
