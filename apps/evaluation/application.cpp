#include "evaluation/application.hpp"

#include <boost/asio/thread_pool.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <demo_files.hpp>
#include <optional>
#include <rqxx/convert.hpp>
#include <rqxx/error.hpp>

#include "evaluation/evaluator.hpp"
#include "evaluation/routes.hpp"

namespace evaluation {
namespace {

namespace json = boost::json;

class EvaluationApplication final : public rqxx::Application {
public:
    explicit EvaluationApplication(const rqxx::ApplicationSettings& settings)
        : settings_(settings),
          packages_(settings.packages_dir.empty() ? settings.data_dir / "mr_packages"
                                                  : settings.packages_dir),
          store_(settings.data_dir / "evaluation.sqlite3"),
          evaluator_(store_, packages_, settings.data_dir / "artifacts") {}

    void register_handlers(rqxx::HandlerRegistry& handlers) override {
        // Python producers may send the session's number.
        handlers.add("eval_worker.evaluate", [this](rqxx::JobContext& context,
                                                    rqxx::Value session_id) {
            return evaluator_.evaluate(context, session_id.kind() == rqxx::Value::Kind::integer
                                                    ? std::to_string(session_id.as_integer())
                                                    : rqxx::Convert<std::string>::from(session_id));
        });
    }

    void register_routes(rqxx::http::Router& router, rqxx::OptimizedQueue& queue) override {
        store_.open();  // What is wrong with the file shows at the start.
        add_routes(router, store_, packages_, queue, blocking_.emplace(2),
                   settings_.legacy_evaluate);
    }

    boost::asio::awaitable<void> run_demo(rqxx::OptimizedQueue& queue) override {
        const std::string session = install_demo();
        co_await queue.enqueue_evaluation(session, {});
    }

private:
    /// Packages that are missing, and sessions if there are none. Returns the session to evaluate.
    std::string install_demo() {
        constexpr std::string_view package_prefix = "package_";
        for (const auto& file : demo_files()) {
            std::string name(file.name.substr(0, file.name.rfind('.')));
            if (name.starts_with(package_prefix))
                packages_.install(name.substr(package_prefix.size()), file.body);
        }
        if (store_.session_count() > 0) return store_.sessions(1).front().id;
        std::string first;
        for (const auto& file : demo_files()) {
            if (file.name != "sessions.json") continue;
            const json::value sessions = json::parse(file.body);
            for (const auto& session : sessions.as_array()) {
                const std::string id = store_.add_session(
                    rqxx::Convert<std::string>::from(rqxx::from_json(session.at("candidate_id"))),
                    rqxx::Convert<std::string>::from(rqxx::from_json(session.at("mr_package"))));
                std::vector<Remark> comments;
                for (const auto& comment : session.at("comments").as_array())
                    comments.push_back(parse_remark(comment));
                store_.add_comments(id, comments);
                if (first.empty()) first = id;
            }
        }
        return first;
    }

    rqxx::ApplicationSettings settings_;
    Packages packages_;
    Store store_;
    Evaluator evaluator_;
    std::optional<boost::asio::thread_pool> blocking_;
};

}  // namespace

std::unique_ptr<rqxx::Application> make_application(const rqxx::ApplicationSettings& settings) {
    return std::make_unique<EvaluationApplication>(settings);
}

}  // namespace evaluation
