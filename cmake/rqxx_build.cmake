# Compiler settings and the functions that define rqxx's modules.

add_library(rqxx_settings INTERFACE)
target_compile_features(rqxx_settings INTERFACE cxx_std_20)
target_compile_options(rqxx_settings INTERFACE
    -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor
    -Woverloaded-virtual -Wimplicit-fallthrough -Werror -fno-omit-frame-pointer
    # ccache sees through a precompiled header only with both of these.
    -fpch-instantiate-templates "SHELL:-Xclang -fno-pch-timestamp")
target_compile_definitions(rqxx_settings INTERFACE
    BOOST_ASIO_SEPARATE_COMPILATION BOOST_ASIO_NO_DEPRECATED BOOST_ASIO_DISABLE_CONCEPTS
    RQXX_VERSION="${PROJECT_VERSION}")
# The linker leaves out what nobody calls and keeps one of what is equal: less of the program becomes resident.
target_compile_options(rqxx_settings INTERFACE -ffunction-sections -fdata-sections)
target_link_options(rqxx_settings INTERFACE -fuse-ld=lld-16 -Wl,--gc-sections,--icf=safe)
target_include_directories(rqxx_settings INTERFACE ${CMAKE_SOURCE_DIR}/include ${CMAKE_SOURCE_DIR}/src
    ${CMAKE_BINARY_DIR}/generated)

if(RQXX_SANITIZE)
    # -fno-sanitize=function: coroutine resume functions have no type information for it to compare.
    target_compile_options(rqxx_settings INTERFACE -fsanitize=${RQXX_SANITIZE} -fno-sanitize-recover=all
        -fno-sanitize=function)
    target_link_options(rqxx_settings INTERFACE -fsanitize=${RQXX_SANITIZE})
endif()

find_program(CCACHE ccache)
if(CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
        CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${CCACHE})
endif()

# rqxx_module(name DEPENDS modules... LINK libraries...)
# One static library from src/<name>/*.cpp. It may include the modules it depends on, and nothing else.
function(rqxx_module name)
    cmake_parse_arguments(arg "" "" "DEPENDS;LINK" ${ARGN})
    set(target rqxx_${name})
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cpp)
    add_library(${target} STATIC ${sources})
    add_library(rqxx::${name} ALIAS ${target})
    list(TRANSFORM arg_DEPENDS PREPEND rqxx_)
    target_link_libraries(${target} PUBLIC rqxx_settings ${arg_DEPENDS} ${arg_LINK})
    if(name STREQUAL "base")
        target_precompile_headers(${target} PRIVATE ${CMAKE_SOURCE_DIR}/src/base/pch.hpp)
    else()
        target_precompile_headers(${target} REUSE_FROM rqxx_base)
    endif()
endfunction()

# Embeds lua/*.lua, with their `--- @include name` lines resolved, as rqxx::lua::<name>.
function(rqxx_embed_lua target)
    file(GLOB scripts CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/lua/*.lua)
    file(GLOB includes CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/lua/includes/*.lua)
    set(out ${CMAKE_BINARY_DIR}/generated/ops)
    add_custom_command(OUTPUT ${out}/lua_scripts.hpp ${out}/lua_scripts.cpp
        COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${CMAKE_SOURCE_DIR}/lua -DOUT=${out}
                -P ${CMAKE_SOURCE_DIR}/cmake/embed_lua.cmake
        DEPENDS ${scripts} ${includes} ${CMAKE_SOURCE_DIR}/cmake/embed_lua.cmake
        COMMENT "Embedding Lua scripts" VERBATIM)
    target_sources(${target} PRIVATE ${out}/lua_scripts.cpp ${out}/lua_scripts.hpp)
endfunction()

# Embeds files: <name>_files.hpp declares <namespace>::<name>_files(), a list of rqxx::EmbeddedFile.
function(rqxx_embed_files target namespace name)
    file(GLOB files CONFIGURE_DEPENDS ${ARGN})
    rqxx_embed_list(${target} ${namespace} ${name} ${files})
endfunction()

# The same for files that the build makes.
function(rqxx_embed_list target namespace name)
    set(out ${CMAKE_BINARY_DIR}/generated)
    add_custom_command(OUTPUT ${out}/${name}_files.cpp ${out}/${name}_files.hpp
        COMMAND ${CMAKE_COMMAND} "-DFILES=${ARGN}" -DNAMESPACE=${namespace} -DNAME=${name} -DOUT=${out}
                -P ${CMAKE_SOURCE_DIR}/cmake/embed_files.cmake
        DEPENDS ${ARGN} ${CMAKE_SOURCE_DIR}/cmake/embed_files.cmake
        COMMENT "Embedding ${name} files" VERBATIM)
    target_sources(${target} PRIVATE ${out}/${name}_files.cpp ${out}/${name}_files.hpp)
endfunction()

# Builds the page from web/ and embeds it. Its packages are shared by all presets and installed once.
function(rqxx_embed_web target)
    find_program(RQXX_NODE NAMES node nodejs)
    find_program(RQXX_NPM npm)
    if(NOT RQXX_NODE OR NOT RQXX_NPM)
        message(FATAL_ERROR "The page needs Node.js 18 or later and npm. Install them with scripts/setup, or: apt-get install nodejs npm")
    endif()
    set(RQXX_WEB_PACKAGES ${CMAKE_SOURCE_DIR}/build/web CACHE PATH "Where the page's npm packages are installed")
    set(web ${CMAKE_SOURCE_DIR}/web)
    set(out ${CMAKE_BINARY_DIR}/web)
    if(out STREQUAL RQXX_WEB_PACKAGES)
        set(out ${CMAKE_BINARY_DIR}/web/page)
    endif()
    file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${web}/src/*)
    set(files ${out}/app.js ${out}/icon.svg ${out}/index.html ${out}/style.css)
    add_custom_command(OUTPUT ${files}
        COMMAND ${RQXX_NODE} ${web}/build.mjs --deps ${RQXX_WEB_PACKAGES} --out ${out}
        DEPENDS ${sources} ${web}/build.mjs ${web}/tsconfig.json ${web}/package.json ${web}/package-lock.json
                ${web}/index.html ${web}/icon.svg
        COMMENT "Building the page" VERBATIM)
    rqxx_embed_list(${target} rqxx::http web ${files})
endfunction()
